//! `BITFIELD`: a string as an array of integers of any width.

use kernel::limit::VALUE_BYTES_MAX;
use smallvec::SmallVec;

use super::bits::{BAD_OFFSET, bit_of, offset, set_bit};
use crate::command::{Command, Flags, ONE};
use crate::object::parse_canonical;
use crate::{Exec, Fault};

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::write(0x188, "bitfield", -2, ONE, bitfield).with(Flags::DENY_OOM),
    Command::read(0x189, "bitfield_ro", -2, ONE, bitfield_ro).with(Flags::FAST),
];

/// What happens to a number that does not fit.
#[derive(Clone, Copy)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

/// An integer's type and place. Signed ones have 1 to 64 bits, unsigned ones 1 to 63.
#[derive(Clone, Copy)]
struct Field {
    signed: bool,
    bits: u32,
    at: u64,
}

#[derive(Clone, Copy)]
enum Step {
    Get(Field),
    Set(Field, i64, Overflow),
    Add(Field, i64, Overflow),
}

type Steps = SmallVec<[Step; 4]>;

fn parse(mut rest: &[&[u8]]) -> Result<Steps, Fault> {
    let mut steps = Steps::new();
    let mut overflow = Overflow::Wrap;
    while let [name, tail @ ..] = rest {
        let is = |word: &[u8]| name.eq_ignore_ascii_case(word);
        rest = match tail {
            [kind, at, tail @ ..] if is(b"get") => {
                steps.push(Step::Get(Field::parse(kind, at)?));
                tail
            }
            [kind, at, number, tail @ ..] if is(b"set") || is(b"incrby") => {
                let field = Field::parse(kind, at)?;
                let number = parse_canonical(number).ok_or(Fault::NotInteger)?;
                steps.push(if is(b"set") {
                    Step::Set(field, number, overflow)
                } else {
                    Step::Add(field, number, overflow)
                });
                tail
            }
            [how, tail @ ..] if is(b"overflow") => {
                overflow = match () {
                    () if how.eq_ignore_ascii_case(b"wrap") => Overflow::Wrap,
                    () if how.eq_ignore_ascii_case(b"sat") => Overflow::Saturate,
                    () if how.eq_ignore_ascii_case(b"fail") => Overflow::Fail,
                    () => return Err(Fault::Text("ERR Invalid OVERFLOW type specified")),
                };
                tail
            }
            _ => return Err(Fault::Syntax),
        };
    }
    Ok(steps)
}

impl Field {
    fn parse(kind: &[u8], at: &[u8]) -> Result<Field, Fault> {
        let bits = kind.get(1..).and_then(parse_canonical).unwrap_or(0);
        let signed = match (kind.first(), bits) {
            (Some(b'i'), 1..=64) => true,
            (Some(b'u'), 1..=63) => false,
            _ => {
                return Err(Fault::Text(
                    "ERR Invalid bitfield type. Use something like i16 u8. \
                     Note that u64 is not supported but i64 is.",
                ));
            }
        };
        let at = match at {
            [b'#', index @ ..] => offset(index, bits)?,
            at => offset(at, 1)?,
        };
        Ok(Field { signed, bits: bits as u32, at })
    }

    /// Bytes a string must have to hold it.
    fn bytes_needed(&self) -> usize {
        ((self.at + u64::from(self.bits) - 1) >> 3) as usize + 1
    }

    fn read(&self, bytes: &[u8]) -> i64 {
        let raw = (0..u64::from(self.bits))
            .fold(0u64, |raw, bit| raw << 1 | u64::from(bit_of(bytes, self.at + bit)));
        self.truncated(raw)
    }

    fn write(&self, bytes: &mut [u8], value: i64) {
        for bit in 0..self.bits {
            set_bit(bytes, self.at + u64::from(bit), value >> (self.bits - 1 - bit) & 1 == 1);
        }
    }

    /// The number that the lowest bits of `raw` are.
    const fn truncated(&self, raw: u64) -> i64 {
        let unused = 64 - self.bits;
        if self.signed { (raw << unused) as i64 >> unused } else { (raw << unused >> unused) as i64 }
    }

    /// `value` if it fits, or what `overflow` makes of it.
    fn fit(&self, value: i128, overflow: Overflow) -> Option<i64> {
        let (min, max) = if self.signed {
            (-(1i128 << (self.bits - 1)), (1i128 << (self.bits - 1)) - 1)
        } else {
            (0, (1i128 << self.bits) - 1)
        };
        match overflow {
            _ if (min..=max).contains(&value) => Some(value as i64),
            Overflow::Wrap => Some(self.truncated(value as u64)),
            Overflow::Saturate => Some(value.clamp(min, max) as i64),
            Overflow::Fail => None,
        }
    }

    /// A number a client wants stored; for an unsigned field a negative one is a very large one.
    const fn wanted(&self, number: i64) -> i128 {
        if self.signed { number as i128 } else { number as u64 as i128 }
    }
}

fn bitfield(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let steps = parse(&args[1..])?;
    let needed = |step: &Step| match step {
        Step::Get(_) => 0,
        Step::Set(field, ..) | Step::Add(field, ..) => field.bytes_needed(),
    };
    let needed = steps.iter().map(needed).max().unwrap_or(0);
    if needed == 0 {
        return read_only(exec, args[0], &steps);
    }
    if needed > VALUE_BYTES_MAX {
        return Err(BAD_OFFSET);
    }
    let answers = exec.store.edit_string(args[0], |bytes| {
        if bytes.len() < needed {
            bytes.resize(needed, 0);
        }
        steps.iter().map(|step| run(*step, bytes)).collect::<SmallVec<[Option<i64>; 4]>>()
    })?;
    exec.reply.array(answers.len());
    for answer in answers {
        match answer {
            Some(number) => exec.reply.int(number),
            None => exec.reply.null(),
        }
    }
    Ok(())
}

fn run(step: Step, bytes: &mut [u8]) -> Option<i64> {
    match step {
        Step::Get(field) => Some(field.read(bytes)),
        Step::Set(field, number, overflow) => {
            let old = field.read(bytes);
            let new = field.fit(field.wanted(number), overflow)?;
            field.write(bytes, new);
            Some(old)
        }
        Step::Add(field, delta, overflow) => {
            let new = field.fit(i128::from(field.read(bytes)) + i128::from(delta), overflow)?;
            field.write(bytes, new);
            Some(new)
        }
    }
}

fn bitfield_ro(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let steps = parse(&args[1..])?;
    read_only(exec, args[0], &steps)
}

fn read_only(exec: &mut Exec<'_>, key: &[u8], steps: &Steps) -> Result<(), Fault> {
    let fields = steps.iter().map(|step| match step {
        Step::Get(field) => Ok(*field),
        Step::Set(..) | Step::Add(..) => Err(Fault::Text("ERR BITFIELD_RO only supports the GET subcommand")),
    });
    let fields = fields.collect::<Result<SmallVec<[Field; 4]>, Fault>>()?;
    let mut scratch = itoa::Buffer::new();
    let bytes = exec.store.string(key, &mut scratch)?.unwrap_or(b"");
    exec.reply.array(fields.len());
    fields.iter().for_each(|field| exec.reply.int(field.read(bytes)));
    Ok(())
}
