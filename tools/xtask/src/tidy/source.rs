//! A Rust file as the text rules see it: code without comments and strings, and which lines are tests.
//!
//! A scanner, not a parser: it knows comments, strings, characters and brackets, which is all the rules
//! need, and it builds in no time. It does not expand macros.

use std::path::PathBuf;

/// One file, cut into lines.
pub struct Source {
    /// Relative to the root of the workspace.
    pub path: PathBuf,
    pub lines: Vec<Line>,
    /// Names of the modules that are declared as `#[cfg(test)] mod name;`.
    pub test_modules: Vec<String>,
}

/// One line, split by what its characters are.
#[derive(Default)]
pub struct Line {
    /// The code, with the insides of strings and characters removed.
    pub code: String,
    /// The text of comments on this line, with their markers.
    pub comment: String,
    /// Inside an item under `#[cfg(test)]` or `#[test]`.
    pub test: bool,
}

impl Source {
    /// Cuts `text` into lines and marks the tests in it. O(bytes).
    pub fn new(path: impl Into<PathBuf>, text: &str) -> Self {
        let mut lines = split(text);
        let test_modules = mark_tests(&mut lines);
        Self { path: path.into(), lines, test_modules }
    }

    /// Declares every line a test: the file is only compiled for tests.
    pub fn all_tests(&mut self) {
        self.lines.iter_mut().for_each(|line| line.test = true);
    }
}

/// What the scanner is inside of.
#[derive(Clone, Copy)]
enum Inside {
    Code,
    LineComment,
    BlockComment { depth: usize },
    Text { hashes: Option<usize> },
}

fn split(text: &str) -> Vec<Line> {
    let chars: Vec<char> = text.chars().collect();
    let mut lines = vec![Line::default()];
    let mut inside = Inside::Code;
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        if c == '\n' {
            if matches!(inside, Inside::LineComment) {
                inside = Inside::Code;
            }
            lines.push(Line::default());
            at += 1;
            continue;
        }
        let line = lines.last_mut().expect("there is always a last line");
        let (next, taken) = step(inside, &chars[at..], previous(&chars, at), line);
        inside = next;
        // A line break is only ever taken by the branch above, so that no line is lost.
        let skip = chars[at + 1..(at + taken).min(chars.len())].iter().position(|&c| c == '\n');
        at += skip.map_or(taken, |before| before + 1);
    }
    if text.ends_with('\n') {
        lines.pop();
    }
    lines
}

fn previous(chars: &[char], at: usize) -> Option<char> {
    at.checked_sub(1).map(|before| chars[before])
}

/// Consumes the start of `rest`; returns what follows and how many characters were taken.
fn step(inside: Inside, rest: &[char], before: Option<char>, line: &mut Line) -> (Inside, usize) {
    let pair = (rest[0], rest.get(1).copied().unwrap_or(' '));
    match inside {
        Inside::Code => code(rest, pair, before, line),
        Inside::LineComment => {
            line.comment.push(rest[0]);
            (inside, 1)
        }
        Inside::BlockComment { depth } => {
            line.comment.push(rest[0]);
            match pair {
                ('/', '*') => (Inside::BlockComment { depth: depth + 1 }, 2),
                ('*', '/') if depth == 1 => (Inside::Code, 2),
                ('*', '/') => (Inside::BlockComment { depth: depth - 1 }, 2),
                _ => (inside, 1),
            }
        }
        Inside::Text { hashes: None } => match pair {
            ('\\', _) => (inside, 2),
            ('"', _) => {
                line.code.push('"');
                (Inside::Code, 1)
            }
            _ => (inside, 1),
        },
        Inside::Text { hashes: Some(n) } => {
            let closes = rest[0] == '"' && rest[1..].iter().take_while(|&&c| c == '#').count() >= n;
            if closes {
                line.code.push('"');
                return (Inside::Code, 1 + n);
            }
            (inside, 1)
        }
    }
}

fn code(rest: &[char], pair: (char, char), before: Option<char>, line: &mut Line) -> (Inside, usize) {
    match pair {
        ('/', '/') => {
            line.comment.push('/');
            (Inside::LineComment, 1)
        }
        ('/', '*') => {
            line.comment.push_str("/*");
            (Inside::BlockComment { depth: 1 }, 2)
        }
        ('"', _) => {
            line.code.push('"');
            (Inside::Text { hashes: None }, 1)
        }
        ('r', '"' | '#')
            if !before.is_some_and(|c| c.is_alphanumeric() && c != 'b' && c != 'c' || c == '_') =>
        {
            let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
            if rest.get(1 + hashes) == Some(&'"') {
                line.code.push('"');
                return (Inside::Text { hashes: Some(hashes) }, 2 + hashes);
            }
            line.code.push('r');
            (Inside::Code, 1)
        }
        ('\'', '\\') => {
            let close = rest.iter().skip(3).position(|&c| c == '\'').map_or(rest.len(), |n| n + 4);
            (Inside::Code, close)
        }
        ('\'', _) if rest.get(2) == Some(&'\'') => (Inside::Code, 3),
        (c, _) => {
            line.code.push(c);
            (Inside::Code, 1)
        }
    }
}

/// Marks the lines of test items; returns the modules that are declared for tests but live elsewhere.
fn mark_tests(lines: &mut [Line]) -> Vec<String> {
    let mut modules = Vec::new();
    let mut row = 0;
    while row < lines.len() {
        let Some(column) = test_attribute(&lines[row].code) else {
            row += 1;
            continue;
        };
        let (end, item) = item_end(lines, row, column);
        if let Some(name) = item.split("mod ").nth(1).and_then(|rest| rest.trim().strip_suffix(';')) {
            modules.push(name.trim().to_owned());
        }
        lines[row..=end].iter_mut().for_each(|line| line.test = true);
        row = end + 1;
    }
    modules
}

fn test_attribute(code: &str) -> Option<usize> {
    ["#[cfg(test)]", "#[cfg(all(test,", "#[test]"].iter().filter_map(|mark| code.find(mark)).min()
}

/// The last line of the item whose attribute starts at (`row`, `column`), and its text up to its body.
fn item_end(lines: &[Line], row: usize, column: usize) -> (usize, String) {
    let (mut braces, mut others, mut head) = (0_usize, 0_usize, String::new());
    for (n, line) in lines.iter().enumerate().skip(row) {
        let code = if n == row { &line.code[column..] } else { &line.code[..] };
        for c in code.chars() {
            if braces == 0 {
                head.push(c);
            }
            match c {
                '{' => braces += 1,
                '}' if braces == 1 && others == 0 => return (n, head),
                '}' => braces = braces.saturating_sub(1),
                '(' | '[' => others += 1,
                ')' | ']' => others = others.saturating_sub(1),
                ';' if braces == 0 && others == 0 => return (n, head),
                _ => {}
            }
        }
        head.push(' ');
    }
    (lines.len() - 1, head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(text: &str) -> Vec<String> {
        Source::new("a.rs", text).lines.into_iter().map(|line| line.code).collect()
    }

    #[test]
    fn strings_characters_and_comments_are_not_code() {
        #[rustfmt::skip] // columns
        let table = [
            ("a(\"x.unwrap()\")",       "a(\"\")"),
            ("a(\"\\\"x\") b",          "a(\"\") b"),
            ("a(r#\"x\"y\"#) b",        "a(\"\") b"),
            ("a(br\"x\\\") b",          "a(b\"\") b"),
            ("var\"x\"",                "var\"\""),
            ("a // dbg!(x)",            "a "),
            ("a /* b /* c */ d */ e",   "a  e"),
            ("'\"' b",                  " b"),
            ("'\\'' b",                 " b"),
            ("fn f<'a>(x: &'a str)",    "fn f<'a>(x: &'a str)"),
            ("r#type",                  "r#type"),
        ];
        for (text, code) in table {
            assert_eq!(code_of(text), [code], "{text}");
        }
    }

    #[test]
    fn a_string_over_several_lines_keeps_the_line_count() {
        let text = "let a = \"one\\\ntwo\nthree\";\nlet b = r\"\n\";\n";
        assert_eq!(code_of(text), ["let a = \"", "", "\";", "let b = \"", "\";"]);
    }

    #[test]
    fn test_items_are_marked_to_their_closing_brace() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b(x: [u8; 4]) { \"}\"; }\n}\nfn c() {}\n\
                    #[test]\nfn d() {\n}\n#[cfg(test)]\nmod far;\nfn e() {}\n";
        let source = Source::new("a.rs", text);
        let tests: Vec<bool> = source.lines.iter().map(|line| line.test).collect();
        let (y, n) = (true, false);
        assert_eq!(tests, [n, y, y, y, y, n, y, y, y, y, y, n]);
        assert_eq!(source.test_modules, ["far"]);
    }
}
