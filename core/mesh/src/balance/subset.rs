//! Subsetting: a client of a large service talks to some of its endpoints only, to keep connections few.

use alloc::vec::Vec;

use kernel::hash::KeyHasher;

/// Part of every subset: another seed would change all of them.
const SEED: u64 = 0x5375_6273;

/// The places of `size` endpoints of `names` for `client`, ascending; all if there are fewer.
///
/// Rendezvous hashing (Thaler & Ravishankar 1998): when an endpoint comes or goes, each client's subset changes by at most
/// that one, and over many clients all endpoints have about the same number of them. O(names · log names).
#[must_use]
pub fn subset(client: u64, names: &[u64], size: usize) -> Vec<usize> {
    let hasher = KeyHasher::new(SEED);
    let score = |name: u64| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&client.to_le_bytes());
        bytes[8..].copy_from_slice(&name.to_le_bytes());
        hasher.hash(&bytes)
    };
    let mut scored: Vec<(u64, usize)> =
        names.iter().enumerate().map(|(at, &name)| (score(name), at)).collect();
    scored.sort_unstable();
    let mut places: Vec<usize> = scored.into_iter().take(size).map(|(_, at)| at).collect();
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn one_endpoint_more_changes_a_subset_by_at_most_one() {
        let names: Vec<u64> = (0..100).map(|n| n * 7919).collect();
        let mut clients = [0_u32; 100];
        for client in 0..2000 {
            let before: BTreeSet<usize> = subset(client, &names[..99], 10).into_iter().collect();
            let after: BTreeSet<usize> = subset(client, &names, 10).into_iter().collect();
            assert_eq!((before.len(), after.len()), (10, 10));
            assert!(before.difference(&after).count() <= 1);
            after.into_iter().for_each(|at| clients[at] += 1);
        }
        // 200 each in the mean, and about 13 more or less (binomial).
        assert!(clients.iter().all(|&count| (140..=260).contains(&count)), "{clients:?}");
        assert_eq!(subset(1, &names[..3], 10), [0, 1, 2]);
    }
}
