//! The proxies' settings as bytes; version 4 is the first that has words for them.

use alloc::sync::Arc;

use super::*;
use crate::apply::mesh::fits;
use crate::mesh::{
    LISTENERS_MAX, MeshSettings, PART_BYTES_MAX, PART_NAME_BYTES_MAX, Part, REVISIONS_MAX, ROUTES_MAX,
    Revision, SERVICES_MAX, Source, USES_MAX,
};

impl Coded for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, *self);
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        reader.varint()
    }
}

impl Coded for Part {
    fn put(&self, out: &mut Vec<u8>) {
        put_text(&self.name, out);
        put_varint(out, self.uses.len() as u64);
        self.uses.iter().for_each(|name| put_text(name, out));
        put_text(&self.text, out);
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        let name = get_text(reader, PART_NAME_BYTES_MAX)?.to_string();
        let mut uses = BTreeSet::new();
        for _ in 0..bounded(reader, USES_MAX)? {
            let name = get_text(reader, PART_NAME_BYTES_MAX)?;
            if uses.last().is_some_and(|last: &String| last.as_str() >= name) {
                return Err(DecodeError::Invalid);
            }
            uses.insert(name.to_string());
        }
        Ok(Part { name, uses, text: get_text(reader, PART_BYTES_MAX)?.to_string() })
    }
}

impl Coded for MeshSettings {
    fn put(&self, out: &mut Vec<u8>) {
        self.lists().into_iter().for_each(|(_, parts)| put_list(parts, out));
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        Ok(MeshSettings {
            listeners: get_list(reader, LISTENERS_MAX)?,
            services: get_list(reader, SERVICES_MAX)?,
            routes: get_list(reader, ROUTES_MAX)?,
        })
    }
}

impl Coded for Revision {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.number);
        put_varint(out, self.version);
        self.by.put(out);
        self.at.put(out);
        match self.source {
            Source::Given => out.push(0),
            Source::Revision(number) => {
                out.push(1);
                put_varint(out, number);
            }
        }
        self.settings.put(out);
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        Ok(Revision {
            number: reader.varint()?,
            version: reader.varint()?,
            by: Coded::get(reader)?,
            at: Coded::get(reader)?,
            source: match reader.u8()? {
                0 => Source::Given,
                1 => Source::Revision(reader.varint()?),
                _ => return Err(DecodeError::Invalid),
            },
            settings: Coded::get(reader)?,
        })
    }
}

pub(super) fn put_revisions(revisions: &VecDeque<Arc<Revision>>, out: &mut Vec<u8>) {
    put_varint(out, revisions.len() as u64);
    revisions.iter().for_each(|revision| revision.put(out));
}

/// Revisions that follow each other, sound ones, and not more than are remembered.
pub(super) fn get_revisions(reader: &mut Reader<'_>) -> Read<VecDeque<Arc<Revision>>> {
    let mut revisions: VecDeque<Arc<Revision>> = VecDeque::new();
    for _ in 0..bounded(reader, REVISIONS_MAX)? {
        let revision = Revision::get(reader)?;
        let follows = match revisions.back() {
            Some(last) => {
                last.number.checked_add(1) == Some(revision.number) && last.version <= revision.version
            }
            // Room for those to come.
            None => (1..=u64::MAX / 2).contains(&revision.number),
        };
        if !follows || revision.settings.as_ref().is_some_and(|settings| settings.check().is_err()) {
            return Err(DecodeError::Invalid);
        }
        revisions.push_back(Arc::new(revision));
        if revisions.len() > 1 && !fits(&revisions) {
            return Err(DecodeError::Overflow);
        }
    }
    Ok(revisions)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::mesh::{MESH_BYTES_MAX, REVISIONS_BYTES_MAX};

    fn revision(number: u64, version: u64, services: Vec<Part>) -> Arc<Revision> {
        let settings = MeshSettings { services, ..MeshSettings::default() };
        let (by, at, source) = (Name::new("ann").unwrap(), Millis(5), Source::Given);
        Arc::new(Revision { number, version, by, at, source, settings: Some(settings) })
    }

    fn read(revisions: Vec<Arc<Revision>>) -> Read<VecDeque<Arc<Revision>>> {
        let mut bytes = Vec::new();
        put_revisions(&revisions.into(), &mut bytes);
        let mut reader = Reader::new(&bytes);
        get_revisions(&mut reader)
    }

    #[test]
    fn revisions_that_do_not_follow_each_other_are_refused() {
        #[rustfmt::skip] // columns
        let table = [
            (vec![],                    true),
            (vec![(1, 4)],              true),
            (vec![(7, 4), (8, 9)],      true),
            (vec![(0, 4)],              false),
            (vec![(u64::MAX, 4)],       false), // none could follow
            (vec![(1, 4), (1, 5)],      false),
            (vec![(2, 4), (1, 5)],      false),
            (vec![(1, 4), (3, 5)],      false),
            (vec![(1, 4), (2, 3)],      false), // of an earlier state
        ];
        for (numbers, taken) in table {
            let all: Vec<_> =
                numbers.iter().map(|&(number, version)| revision(number, version, vec![])).collect();
            let expected = if taken { Ok(all.clone().into()) } else { Err(DecodeError::Invalid) };
            assert_eq!(read(all), expected, "{numbers:?}");
        }
    }

    #[test]
    fn more_than_is_remembered_and_what_is_unsound_are_refused() {
        let part =
            |name: &str, bytes| Part { name: name.into(), uses: BTreeSet::new(), text: "x".repeat(bytes) };
        let count = |count: usize| (1..=count as u64).map(|at| revision(at, at, vec![])).collect::<Vec<_>>();
        assert!(read(count(REVISIONS_MAX)).is_ok());
        assert_eq!(read(count(REVISIONS_MAX + 1)), Err(DecodeError::Overflow));
        let large: Vec<Part> = (10..25).map(|at| part(&alloc::format!("{at}"), PART_BYTES_MAX)).collect();
        let fit = REVISIONS_BYTES_MAX / revision(1, 1, large.clone()).bytes();
        let larges = |count: usize| (1..=count as u64).map(|at| revision(at, at, large.clone())).collect();
        assert!(read(larges(fit)).is_ok());
        assert_eq!(read(larges(fit + 1)), Err(DecodeError::Overflow));
        let twice = vec![part("a", 1), part("a", 2)];
        assert_eq!(read(vec![revision(1, 1, twice)]), Err(DecodeError::Invalid));
        let beyond =
            [large, vec![part("b", PART_BYTES_MAX), part("c", MESH_BYTES_MAX % PART_BYTES_MAX)]].concat();
        assert_eq!(read(vec![revision(1, 1, beyond)]), Err(DecodeError::Invalid));
    }
}
