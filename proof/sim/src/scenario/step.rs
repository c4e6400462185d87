//! The steps of scenarios, as they are written.

use consensus::Durability;
use thiserror::Error;

/// What may be written. A reader finds the same list in `scenarios/README.md`.
const KNOWN: &str = "start always|everysec, client NAME: COMMAND, client NAME leaves, turn, sync ends, sync fails, \
                     time +N ms|s, disk full, disk has space, checkpoint begins, checkpoint is written, \
                     checkpoint is durable, kill, power cut, power cut, N sectors reached the disk, a bit flips, \
                     restart";

/// Longest time that one step may let pass, in milliseconds: a day.
const PASS_MS_MAX: u64 = 24 * 3600 * 1000;
/// Longest argument that `x*N` stands for, in bytes.
const REPEAT_BYTES_MAX: usize = 16 * 1024;

/// Why a step is not done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StepError {
    /// The first line is none.
    #[error("a scenario begins with its title: `# Title`")]
    Untitled,
    /// The file has only words.
    #[error("there is no step in it")]
    Nothing,
    /// There is no such step.
    #[error("no step is called `{0}`; there are: {KNOWN}")]
    Unknown(String),
    /// There is, but it cannot be done at this point.
    #[error("not here: {0}")]
    Untimely(&'static str),
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A node with this promise begins with an empty disk.
    Start(Durability),
    /// The node reads a command from a client, which connects with its first one.
    Send {
        /// The client's name.
        client: String,
        /// An inline command.
        command: String,
    },
    /// A client closes its connection.
    Leave {
        /// Its name.
        client: String,
    },
    /// The node ends its turn: it logs, applies, answers, and has a due sync begun.
    Turn,
    /// The sync under way is done; the next turn acts on it.
    SyncEnds,
    /// It fails.
    SyncFails,
    /// So many microseconds pass.
    Pass(u64),
    /// From here on there is no space.
    DiskFull,
    /// There is again.
    DiskHasSpace,
    /// A checkpoint is cut at the applied entry.
    CheckpointBegins,
    /// What the cut holds is written out.
    CheckpointWritten,
    /// The engine has made it durable.
    CheckpointDurable,
    /// The process is killed; the system keeps what it wrote.
    Kill,
    /// The power fails. Of what was not synced, this many sectors are on the disk, first written first.
    PowerCut(usize),
    /// A bit flips in what the log says is synced.
    BitFlips,
    /// The node starts from what is on the disk.
    Restart,
}

impl Step {
    /// Reads a line.
    ///
    /// # Errors
    /// [`StepError::Unknown`].
    pub fn parse(line: &str) -> Result<Step, StepError> {
        let step = match line {
            "start always" => Step::Start(Durability::Always),
            "start everysec" => Step::Start(Durability::EverySec),
            "turn" => Step::Turn,
            "sync ends" => Step::SyncEnds,
            "sync fails" => Step::SyncFails,
            "disk full" => Step::DiskFull,
            "disk has space" => Step::DiskHasSpace,
            "checkpoint begins" => Step::CheckpointBegins,
            "checkpoint is written" => Step::CheckpointWritten,
            "checkpoint is durable" => Step::CheckpointDurable,
            "kill" => Step::Kill,
            "power cut" => Step::PowerCut(0),
            "a bit flips" => Step::BitFlips,
            "restart" => Step::Restart,
            _ => return worded(line).ok_or_else(|| StepError::Unknown(line.to_owned())),
        };
        Ok(step)
    }
}

/// The steps with a name or a number in them.
fn worded(line: &str) -> Option<Step> {
    if let Some(rest) = line.strip_prefix("client ") {
        if let Some(name) = rest.strip_suffix(" leaves").filter(|name| is_name(name)) {
            return Some(Step::Leave { client: name.to_owned() });
        }
        let (name, command) = rest.split_once(": ")?;
        return is_name(name).then(|| Step::Send { client: name.to_owned(), command: expanded(command) });
    }
    if let Some(rest) = line.strip_prefix("time +") {
        let (number, unit) = rest.split_once(' ')?;
        let millis = number.parse::<u64>().ok()?.checked_mul(match unit {
            "ms" => 1,
            "s" => 1000,
            _ => return None,
        })?;
        return (millis <= PASS_MS_MAX).then_some(Step::Pass(millis * 1000));
    }
    let rest = line.strip_prefix("power cut, ")?;
    let number = rest.strip_suffix(" reached the disk")?;
    let number = number.strip_suffix(" sectors").or_else(|| number.strip_suffix(" sector"))?;
    number.parse().ok().map(Step::PowerCut)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Writes `x*1500` out, so that a long value is a short text.
fn expanded(command: &str) -> String {
    let words = command.split(' ').map(|word| long(word).unwrap_or_else(|| word.to_owned()));
    words.collect::<Vec<String>>().join(" ")
}

fn long(word: &str) -> Option<String> {
    let (letter, count) = word.split_once('*')?;
    let count = count.parse().ok().filter(|count| (1..=REPEAT_BYTES_MAX).contains(count))?;
    (letter.len() == 1).then(|| letter.repeat(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_step_or_none() {
        let send =
            |client: &str, command: &str| Step::Send { client: client.into(), command: command.into() };
        #[rustfmt::skip] // columns
        let table = [
            ("client a: SET k 1",                     Some(send("a", "SET k 1"))),
            ("client a: SET k: x*3",                  Some(send("a", "SET k: xxx"))),
            ("client a: KEYS xy*3",                   Some(send("a", "KEYS xy*3"))),
            ("client a: SET k x*99999999",            Some(send("a", "SET k x*99999999"))),
            ("client a leaves",                       Some(Step::Leave { client: "a".into() })),
            ("client : GET k",                        None),
            ("client a GET k",                        None),
            ("time +5 ms",                            Some(Step::Pass(5_000))),
            ("time +2 s",                             Some(Step::Pass(2_000_000))),
            ("time +2 h",                             None),
            ("time +99999999999999999999 s",          None),
            ("time +90000000000 s",                   None),
            ("power cut",                             Some(Step::PowerCut(0))),
            ("power cut, 2 sectors reached the disk", Some(Step::PowerCut(2))),
            ("power cut, 1 sector reached the disk",  Some(Step::PowerCut(1))),
            ("power cut, two sectors",                None),
            ("Turn",                                  None),
        ];
        for (line, expected) in table {
            assert_eq!(Step::parse(line).ok(), expected, "{line}");
        }
    }
}
