//! When a peer has stalled: one watch for each connection, as a machine.
//!
//! Every wait for a peer has a deadline with a name. A peer that drips bytes gains nothing: the handshake, a frame
//! and the silence between frames are measured as wholes.

use kernel::Micros;

/// From the connection to the greeting, both ways, in milliseconds.
pub const HANDSHAKE_MS_MAX: u64 = 5_000;
/// From the first byte of a frame to its last, in milliseconds.
pub const FRAME_MS_MAX: u64 = 30_000;
/// For how long a peer may take nothing of what waits for it, in milliseconds.
pub const WRITE_MS_MAX: u64 = 10_000;
/// For how long nothing may come from a peer, in milliseconds. It sends a beat when it has nothing else.
pub const SILENCE_MS_MAX: u64 = 10_000;
/// After so much silence of our own, in milliseconds, we send a beat.
pub const BEAT_MS: u64 = 2_000;
/// For how long a request to join may wait for its answer, in milliseconds.
pub const JOIN_MS_MAX: u64 = 30_000;

const _: () = assert!(BEAT_MS * 4 < SILENCE_MS_MAX, "some beats may be late");
const _: () = assert!(HANDSHAKE_MS_MAX <= super::settle::SETTLED_MS, "a dial that crossed has ended by then");

/// What a peer did not do in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stalled {
    /// It did not finish the handshake.
    Handshake,
    /// It began a frame and did not finish it.
    Frame,
    /// It takes nothing of what waits for it.
    Write,
    /// It says nothing.
    Silence,
    /// The request to join was not answered.
    Join,
}

/// The watch of one connection.
#[derive(Debug)]
pub struct Watch {
    stage: Stage,
    frame_since: Option<Micros>,
    write_since: Option<Micros>,
    heard: Micros,
    spoke: Micros,
    held: bool,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Handshake(Micros),
    Up,
    Join(Micros),
}

impl Watch {
    /// The connection was begun or accepted.
    #[must_use]
    pub const fn new(now: Micros) -> Watch {
        Watch {
            stage: Stage::Handshake(now),
            frame_since: None,
            write_since: None,
            heard: now,
            spoke: now,
            held: false,
        }
    }

    /// The handshake is over.
    pub const fn up(&mut self, now: Micros) {
        self.stage = Stage::Up;
        self.heard = now;
        self.spoke = now;
    }

    /// The handshake is over, and a request to join waits for its answer.
    pub const fn join(&mut self, now: Micros) {
        self.stage = Stage::Join(now);
    }

    /// While we do not read (`held`), the peer cannot be late with what it sends.
    pub const fn hold(&mut self, held: bool) {
        self.held = held;
        self.frame_since = None;
    }

    /// Payload arrived. `inside` says whether it ended within a frame; `frames`, whether any frame ended.
    pub const fn heard(&mut self, now: Micros, frames: bool, inside: bool) {
        self.heard = now;
        if frames || !inside {
            self.frame_since = None;
        }
        if inside && self.frame_since.is_none() {
            self.frame_since = Some(now);
        }
    }

    /// The socket was offered bytes. `took` says whether it took any, `waiting` whether some are left.
    pub const fn wrote(&mut self, now: Micros, took: bool, waiting: bool) {
        if took {
            self.spoke = now;
        }
        if took || !waiting {
            self.write_since = None;
        }
        if waiting && self.write_since.is_none() {
            self.write_since = Some(now);
        }
    }

    /// True if a beat is to be sent.
    #[must_use]
    pub const fn beat_due(&self, now: Micros) -> bool {
        // One that cannot be written would only queue up.
        matches!(self.stage, Stage::Up)
            && self.write_since.is_none()
            && now.since(self.spoke) >= BEAT_MS * 1000
    }

    /// What the peer has failed to do by `now`.
    #[must_use]
    pub fn verdict(&self, now: Micros) -> Option<Stalled> {
        self.limits().into_iter().flatten().find(|(at, _)| *at <= now).map(|(_, stalled)| stalled)
    }

    /// When [`Watch::verdict`] or [`Watch::beat_due`] can next change.
    #[must_use]
    pub fn deadline(&self) -> Micros {
        let beat = (matches!(self.stage, Stage::Up) && self.write_since.is_none())
            .then(|| self.spoke.plus_millis(BEAT_MS));
        let limits = self.limits().into_iter().flatten().map(|(at, _)| at);
        limits.chain(beat).min().expect("every stage has a limit")
    }

    fn limits(&self) -> [Option<(Micros, Stalled)>; 3] {
        let stage = match self.stage {
            Stage::Handshake(since) => (since.plus_millis(HANDSHAKE_MS_MAX), Stalled::Handshake),
            Stage::Join(since) => (since.plus_millis(JOIN_MS_MAX), Stalled::Join),
            Stage::Up if self.held => (Micros(u64::MAX), Stalled::Silence),
            Stage::Up => (self.heard.plus_millis(SILENCE_MS_MAX), Stalled::Silence),
        };
        let frame = self.frame_since.map(|since| (since.plus_millis(FRAME_MS_MAX), Stalled::Frame));
        let write = self.write_since.map(|since| (since.plus_millis(WRITE_MS_MAX), Stalled::Write));
        [Some(stage), frame, write]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the watch was told, at which millisecond.
    enum Told {
        Up(u64),
        Join(u64),
        Heard(u64, bool, bool),
        Wrote(u64, bool, bool),
        Hold(bool),
    }
    use Told::{Heard, Hold, Join, Up, Wrote};

    fn at(ms: u64) -> Micros {
        Micros(1_000_000).plus_millis(ms)
    }

    fn watch(told: &[Told]) -> Watch {
        let mut watch = Watch::new(at(0));
        for event in told {
            match *event {
                Up(ms) => watch.up(at(ms)),
                Join(ms) => watch.join(at(ms)),
                Heard(ms, frames, inside) => watch.heard(at(ms), frames, inside),
                Wrote(ms, took, waiting) => watch.wrote(at(ms), took, waiting),
                Hold(held) => watch.hold(held),
            }
        }
        watch
    }

    #[test]
    fn a_peer_is_cut_at_the_deadline_that_it_missed_and_not_before() {
        #[rustfmt::skip] // columns
        let table: &[(&[Told], u64, Stalled)] = &[
            (&[],                                                      5_000,  Stalled::Handshake),
            // Bytes that drip in do not help.
            (&[Heard(4_000, true, true)],                              5_000,  Stalled::Handshake),
            (&[Join(1_000)],                                           31_000, Stalled::Join),
            (&[Up(100)],                                               10_100, Stalled::Silence),
            (&[Up(100), Heard(9_000, true, false)],                    19_000, Stalled::Silence),
            (&[Up(0), Heard(5_000, false, true), Heard(14_000, false, true), Heard(23_000, false, true),
               Heard(32_000, false, true)],                            35_000, Stalled::Frame),
            // A frame ended in between: the next one has its own time.
            (&[Up(0), Heard(5_000, false, true), Heard(14_000, true, true), Heard(23_000, false, true),
               Heard(32_000, false, true), Heard(41_000, false, true)], 44_000, Stalled::Frame),
            (&[Up(0), Wrote(1_000, true, true)],                       10_000, Stalled::Silence),
            // We did not read: only what it does not take counts.
            (&[Up(0), Heard(5_000, false, true), Hold(true), Wrote(40_000, true, true)], 50_000, Stalled::Write),
            (&[Up(0), Hold(true), Hold(false), Heard(60_000, false, true)], 70_000, Stalled::Silence),
            (&[Up(0), Wrote(1_000, true, true), Heard(5_000, true, false)], 11_000, Stalled::Write),
            (&[Up(0), Wrote(1_000, true, true), Wrote(2_000, false, true), Heard(5_000, true, false)], 11_000, Stalled::Write),
            (&[Up(0), Wrote(1_000, true, true), Wrote(2_000, true, true), Heard(5_000, true, false)], 12_000, Stalled::Write),
            (&[Up(0), Wrote(1_000, true, true), Wrote(2_000, true, false), Heard(5_000, true, false)], 15_000, Stalled::Silence),
        ];
        for (row, (told, limit, stalled)) in table.iter().enumerate() {
            let watch = watch(told);
            assert_eq!(watch.verdict(at(*limit) - 1), None, "row {row}");
            assert_eq!(watch.verdict(at(*limit)), Some(*stalled), "row {row}");
            assert!(watch.deadline() <= at(*limit), "row {row}");
        }
    }

    #[test]
    fn a_beat_is_due_after_our_own_silence_unless_the_peer_takes_nothing() {
        #[rustfmt::skip] // columns
        let table: &[(&[Told], u64, bool)] = &[
            (&[],                                       2_000, false), // not in a handshake
            (&[Up(0)],                                  1_999, false),
            (&[Up(0)],                                  2_000, true),
            (&[Up(0), Wrote(1_000, true, false)],       2_999, false),
            (&[Up(0), Wrote(1_000, true, false)],       3_000, true),
            (&[Up(0), Wrote(1_000, true, true)],        9_000, false),
        ];
        for (row, (told, ms, due)) in table.iter().enumerate() {
            let watch = watch(told);
            assert_eq!(watch.beat_due(at(*ms)), *due, "row {row}");
            assert!(!due || watch.deadline() <= at(*ms), "row {row}");
        }
    }
}
