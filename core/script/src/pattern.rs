//! Lua 5.1's patterns (Reference Manual §5.4.1) with bounds: on depth, because the C library's matcher
//! can overflow the stack, and on steps, because some patterns take time of a high power of the length.

/// Captures a pattern may have.
const CAPTURES_MAX: usize = 32;
/// Nested choices a match may be in.
const DEPTH_MAX: usize = 200;
const ESCAPE: u8 = b'%';

/// Why a pattern does not match or fail, but breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The pattern is not one, or is too complex.
    Pattern(&'static str),
    /// The steps are used up.
    Steps,
}

/// A part of the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// The bytes from the first to before the second position.
    Range(usize, usize),
    /// `()`: a position.
    Position(usize),
}

#[derive(Clone, Copy)]
enum Group {
    Open(usize),
    Closed(usize, usize),
    Position(usize),
}

/// A pattern at work on a subject.
pub struct Matcher<'a> {
    subject: &'a [u8],
    pattern: &'a [u8],
    groups: Vec<Group>,
    depth: usize,
    /// What is left of the steps.
    pub steps: u64,
}

type Matched = Result<Option<usize>, Broken>;

impl<'a> Matcher<'a> {
    /// Matches `pattern`, its anchor taken off, against `subject` with at most `steps` steps.
    pub const fn new(subject: &'a [u8], pattern: &'a [u8], steps: u64) -> Matcher<'a> {
        Matcher { subject, pattern, groups: Vec::new(), depth: 0, steps }
    }

    /// The end of the match that starts exactly at `at`.
    ///
    /// # Errors
    /// The pattern is broken or the steps are used up.
    pub fn at(&mut self, at: usize) -> Matched {
        self.groups.clear();
        self.depth = 0;
        self.run(at, 0)
    }

    /// The captures of the last match, which was `start..end`; the whole match if there are none.
    ///
    /// # Errors
    /// A capture was not closed.
    pub fn captures(&self, start: usize, end: usize) -> Result<Vec<Capture>, Broken> {
        if self.groups.is_empty() {
            return Ok(vec![Capture::Range(start, end)]);
        }
        let closed = self.groups.iter().map(|group| match *group {
            Group::Closed(from, to) => Ok(Capture::Range(from, to)),
            Group::Position(at) => Ok(Capture::Position(at + 1)),
            Group::Open(_) => Err(Broken::Pattern("unfinished capture")),
        });
        closed.collect()
    }

    /// Matches the pattern from `p` on at `s`, as a choice of its own.
    fn choice(&mut self, s: usize, p: usize) -> Matched {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Broken::Pattern("pattern too complex"));
        }
        let result = self.run(s, p);
        self.depth -= 1;
        result
    }

    fn step(&mut self) -> Result<(), Broken> {
        self.steps = self.steps.checked_sub(1).ok_or(Broken::Steps)?;
        Ok(())
    }

    fn run(&mut self, mut s: usize, mut p: usize) -> Matched {
        loop {
            self.step()?;
            let Some(&first) = self.pattern.get(p) else { return Ok(Some(s)) };
            let second = self.pattern.get(p + 1).copied();
            match (first, second) {
                (b'(', Some(b')')) => return self.open(s, p + 2, Group::Position(s)),
                (b'(', _) => return self.open(s, p + 1, Group::Open(s)),
                (b')', _) => return self.close(s, p + 1),
                (b'$', None) => return Ok((s == self.subject.len()).then_some(s)),
                (ESCAPE, Some(b'b')) => match self.balance(s, p + 2)? {
                    Some(end) => (s, p) = (end, p + 4),
                    None => return Ok(None),
                },
                (ESCAPE, Some(b'f')) => match self.frontier(s, p + 2)? {
                    Some(next) => p = next,
                    None => return Ok(None),
                },
                (ESCAPE, Some(digit)) if digit.is_ascii_digit() => match self.back(s, digit)? {
                    Some(end) => (s, p) = (end, p + 2),
                    None => return Ok(None),
                },
                _ => match self.item(s, p)? {
                    Next::At(next_s, next_p) => (s, p) = (next_s, next_p),
                    Next::Done(result) => return Ok(result),
                },
            }
        }
    }

    /// One class, and what follows it if it is repeated.
    fn item(&mut self, s: usize, p: usize) -> Result<Next, Broken> {
        let end = self.class_end(p)?;
        let here = s < self.subject.len() && self.single(self.subject[s], p, end)?;
        match self.pattern.get(end) {
            Some(b'?') => {
                if here && let Some(found) = self.choice(s + 1, end + 1)? {
                    return Ok(Next::Done(Some(found)));
                }
                Ok(Next::At(s, end + 1))
            }
            Some(b'*') => self.longest(s, p, end, 0).map(Next::Done),
            Some(b'+') if !here => Ok(Next::Done(None)),
            Some(b'+') => self.longest(s, p, end, 1).map(Next::Done),
            Some(b'-') => self.shortest(s, p, end).map(Next::Done),
            _ if here => Ok(Next::At(s + 1, end)),
            _ => Ok(Next::Done(None)),
        }
    }

    fn longest(&mut self, s: usize, p: usize, end: usize, least: usize) -> Matched {
        let mut count = 0;
        while s + count < self.subject.len() && self.single(self.subject[s + count], p, end)? {
            self.step()?;
            count += 1;
        }
        loop {
            if count < least {
                return Ok(None);
            }
            if let Some(found) = self.choice(s + count, end + 1)? {
                return Ok(Some(found));
            }
            if count == 0 {
                return Ok(None);
            }
            count -= 1;
        }
    }

    fn shortest(&mut self, mut s: usize, p: usize, end: usize) -> Matched {
        loop {
            if let Some(found) = self.choice(s, end + 1)? {
                return Ok(Some(found));
            }
            if s >= self.subject.len() || !self.single(self.subject[s], p, end)? {
                return Ok(None);
            }
            s += 1;
        }
    }

    fn open(&mut self, s: usize, p: usize, group: Group) -> Matched {
        if self.groups.len() >= CAPTURES_MAX {
            return Err(Broken::Pattern("too many captures"));
        }
        let len = self.groups.len();
        self.groups.push(group);
        let found = self.choice(s, p)?;
        if found.is_none() {
            self.groups.truncate(len);
        }
        Ok(found)
    }

    fn close(&mut self, s: usize, p: usize) -> Matched {
        let open = self.groups.iter().rposition(|group| matches!(group, Group::Open(_)));
        let Some(at) = open else { return Err(Broken::Pattern("invalid pattern capture")) };
        let Group::Open(start) = self.groups[at] else { unreachable!("the position found is open") };
        self.groups[at] = Group::Closed(start, s);
        let found = self.choice(s, p)?;
        if found.is_none() {
            self.groups[at] = Group::Open(start);
        }
        Ok(found)
    }

    /// `%bxy`: the end of the balanced run at `s`.
    fn balance(&mut self, s: usize, p: usize) -> Matched {
        let (Some(&open), Some(&close)) = (self.pattern.get(p), self.pattern.get(p + 1)) else {
            return Err(Broken::Pattern("unbalanced pattern"));
        };
        if self.subject.get(s) != Some(&open) {
            return Ok(None);
        }
        let mut nested = 1usize;
        for at in s + 1..self.subject.len() {
            self.step()?;
            let byte = self.subject[at];
            if byte == close {
                nested -= 1;
                if nested == 0 {
                    return Ok(Some(at + 1));
                }
            } else if byte == open {
                nested += 1;
            }
        }
        Ok(None)
    }

    /// `%f[set]`: the pattern's position behind it, if the set begins at `s`.
    fn frontier(&mut self, s: usize, p: usize) -> Matched {
        if self.pattern.get(p) != Some(&b'[') {
            return Err(Broken::Pattern("missing '[' after '%f' in pattern"));
        }
        let end = self.class_end(p)?;
        let before = if s == 0 { 0 } else { self.subject[s - 1] };
        let after = self.subject.get(s).copied().unwrap_or(0);
        let begins = !self.single(before, p, end)? && self.single(after, p, end)?;
        Ok(begins.then_some(end))
    }

    /// `%1`: the end of another copy of a capture at `s`.
    fn back(&mut self, s: usize, digit: u8) -> Matched {
        let index = usize::from(digit.wrapping_sub(b'1'));
        let Some(&Group::Closed(from, to)) = self.groups.get(index) else {
            return Err(Broken::Pattern("invalid capture index"));
        };
        let copy = &self.subject[from..to];
        self.steps = self.steps.checked_sub(copy.len() as u64 / 16).ok_or(Broken::Steps)?;
        Ok(self.subject[s..].starts_with(copy).then_some(s + copy.len()))
    }

    /// Where the class at `p` ends.
    fn class_end(&self, p: usize) -> Result<usize, Broken> {
        match self.pattern[p] {
            ESCAPE if p + 1 >= self.pattern.len() => {
                Err(Broken::Pattern("malformed pattern (ends with '%')"))
            }
            ESCAPE => Ok(p + 2),
            b'[' => {
                let mut at = p + 1;
                if self.pattern.get(at) == Some(&b'^') {
                    at += 1;
                }
                // The first byte is a member, even if it is a bracket.
                loop {
                    match self.pattern.get(at) {
                        None => return Err(Broken::Pattern("malformed pattern (missing ']')")),
                        Some(&ESCAPE) => at += 2,
                        Some(_) => at += 1,
                    }
                    if self.pattern.get(at) == Some(&b']') {
                        return Ok(at + 1);
                    }
                }
            }
            _ => Ok(p + 1),
        }
    }

    /// Whether `byte` is in the class `p..end`.
    fn single(&mut self, byte: u8, p: usize, end: usize) -> Result<bool, Broken> {
        Ok(match self.pattern[p] {
            b'.' => true,
            ESCAPE => class(byte, self.pattern[p + 1]),
            b'[' => {
                self.steps = self.steps.checked_sub((end - p) as u64 / 8).ok_or(Broken::Steps)?;
                self.in_set(byte, p + 1, end - 1)
            }
            other => other == byte,
        })
    }

    fn in_set(&self, byte: u8, mut at: usize, end: usize) -> bool {
        let negated = self.pattern[at] == b'^';
        if negated {
            at += 1;
        }
        while at < end {
            let first = self.pattern[at];
            if first == ESCAPE && at + 1 < end {
                if class(byte, self.pattern[at + 1]) {
                    return !negated;
                }
                at += 2;
            } else if at + 2 < end && self.pattern[at + 1] == b'-' {
                if (first..=self.pattern[at + 2]).contains(&byte) {
                    return !negated;
                }
                at += 3;
            } else {
                if first == byte {
                    return !negated;
                }
                at += 1;
            }
        }
        negated
    }
}

enum Next {
    At(usize, usize),
    Done(Option<usize>),
}

/// Whether `byte` is in the class named by `letter`; other letters stand for themselves.
fn class(byte: u8, letter: u8) -> bool {
    let inside = match letter.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => byte.is_ascii_whitespace() || byte == 0x0B,
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return letter == byte,
    };
    inside != letter.is_ascii_uppercase()
}
