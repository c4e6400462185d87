//! `LCS`: the longest common subsequence of two strings (Wagner & Fischer 1974).

use alloc::vec::Vec;

use kernel::limit::VALUE_BYTES_MAX;

use crate::command::{Command, TWO};
use crate::object::parse_canonical;
use crate::{Exec, Fault};

/// This family's rows.
pub const COMMANDS: &[Command] = &[Command::read(0x120, "lcs", -3, TWO, lcs)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Text,
    Length,
    Ranges,
}

struct Options {
    answer: Answer,
    shortest: u64,
    with_length: bool,
}

fn options(mut rest: &[&[u8]]) -> Result<Options, Fault> {
    let (mut ranges, mut length) = (false, false);
    let mut options = Options { answer: Answer::Text, shortest: 0, with_length: false };
    while let [option, tail @ ..] = rest {
        rest = tail;
        let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
        if is(b"idx") {
            ranges = true;
        } else if is(b"len") {
            length = true;
        } else if is(b"withmatchlen") {
            options.with_length = true;
        } else if let (true, [amount, tail @ ..]) = (is(b"minmatchlen"), tail) {
            rest = tail;
            let shortest = parse_canonical(amount).ok_or(Fault::NotInteger)?;
            options.shortest = u64::try_from(shortest).unwrap_or(0);
        } else {
            return Err(Fault::Syntax);
        }
    }
    options.answer = match (ranges, length) {
        (true, true) => {
            return Err(Fault::Text("ERR If you want both the length and indexes, please just use IDX."));
        }
        (true, false) => Answer::Ranges,
        (false, true) => Answer::Length,
        (false, false) => Answer::Text,
    };
    Ok(options)
}

fn string(exec: &mut Exec<'_>, key: &[u8]) -> Result<Vec<u8>, Fault> {
    match exec.store.string(key, &mut itoa::Buffer::new()) {
        Ok(bytes) => Ok(bytes.map(Vec::from).unwrap_or_default()),
        Err(Fault::WrongType) => Err(Fault::Text("ERR The specified keys must contain string values")),
        Err(fault) => Err(fault),
    }
}

fn lcs(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (a, b) = (string(exec, args[0])?, string(exec, args[1])?);
    let options = options(&args[2..])?;
    let cells = (a.len() + 1).checked_mul(b.len() + 1);
    if cells.is_none_or(|cells| cells > VALUE_BYTES_MAX / size_of::<u32>()) {
        return Err(Fault::Text(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ));
    }
    let lengths = Lengths::of(&a, &b);
    let total = lengths.at(a.len(), b.len());
    match options.answer {
        Answer::Length => exec.reply.int(i64::from(total)),
        Answer::Text => {
            let mut text = Vec::with_capacity(total as usize);
            for run in lengths.runs(&a, &b).iter().rev() {
                text.extend_from_slice(&a[run.a..run.a + run.len]);
            }
            exec.reply.bulk(&text);
        }
        Answer::Ranges => {
            let mut runs = lengths.runs(&a, &b);
            runs.retain(|run| run.len as u64 >= options.shortest);
            exec.reply.map(2);
            exec.reply.bulk(b"matches");
            exec.reply.array(runs.len());
            for run in &runs {
                exec.reply.array(if options.with_length { 3 } else { 2 });
                for start in [run.a, run.b] {
                    exec.reply.array(2);
                    exec.reply.int(start as i64);
                    exec.reply.int((start + run.len - 1) as i64);
                }
                if options.with_length {
                    exec.reply.int(run.len as i64);
                }
            }
            exec.reply.bulk(b"len");
            exec.reply.int(i64::from(total));
        }
    }
    Ok(())
}

/// The lengths of the longest common subsequences of all pairs of prefixes.
struct Lengths {
    cells: Vec<u32>,
    width: usize,
}

/// Bytes that are common and adjacent in both strings.
struct Run {
    a: usize,
    b: usize,
    len: usize,
}

impl Lengths {
    fn of(a: &[u8], b: &[u8]) -> Lengths {
        let width = b.len() + 1;
        let mut cells = alloc::vec![0u32; (a.len() + 1) * width];
        for (i, x) in a.iter().enumerate() {
            let (above, row) = cells[i * width..].split_at_mut(width);
            for (j, y) in b.iter().enumerate() {
                row[j + 1] = if x == y { above[j] + 1 } else { above[j + 1].max(row[j]) };
            }
        }
        Lengths { cells, width }
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells[i * self.width + j]
    }

    /// The runs of one longest common subsequence, the last first. Where there is a choice, it goes
    /// back in `b`, as Redis does.
    fn runs(&self, a: &[u8], b: &[u8]) -> Vec<Run> {
        let (mut i, mut j) = (a.len(), b.len());
        let mut runs: Vec<Run> = Vec::new();
        let mut open = false;
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                match runs.last_mut() {
                    Some(run) if open => *run = Run { a: i, b: j, len: run.len + 1 },
                    _ => runs.push(Run { a: i, b: j, len: 1 }),
                }
                open = true;
            } else {
                open = false;
                if self.at(i - 1, j) > self.at(i, j - 1) { i -= 1 } else { j -= 1 }
            }
        }
        runs
    }
}
