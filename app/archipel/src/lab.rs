//! `archipel lab`: the claims, run and judged.
//!
//! The parameters of `lab run` are the claim's own, so its command line is made from the claim.

use std::cell::RefCell;
use std::io::Write;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, anyhow};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use indicatif::{ProgressBar, ProgressStyle};
use lab::claim::{Progress, number};
use lab::{ALL, Bound, Claim, Findings, Judgement, Run, Verdict, judge};
use serde_json::json;

use crate::command::LabCommand;
use crate::exit::{Exit, Failure};
use crate::options::Options;
use crate::output::Stdout;

/// Runs the verb.
pub fn run(options: &Options, what: LabCommand) -> Result<Exit, Failure> {
    if !matches!(what, LabCommand::List) {
        with_huge_pages();
    }
    match what {
        LabCommand::List => list(options.json),
        LabCommand::Run { words } => run_one(options.json, &words),
        LabCommand::Report { out, seed, small } => report(options.json, out.as_deref(), seed, small),
    }
}

/// Begins this process anew with pages of 2 MiB, where the system leaves that to the program: a million simulated nodes
/// take gigabytes that are read all over, and most of a message's time would be spent on looking pages up. A node is
/// better served by small pages, and only a process's beginning can tell its allocator.
fn with_huge_pages() {
    const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    const ALLOCATOR: &str = "_RJEM_MALLOC_CONF";
    let asked_for = std::fs::read_to_string(HUGE_PAGES).is_ok_and(|words| words.contains("[madvise]"));
    if asked_for && std::env::var_os(ALLOCATOR).is_none() {
        let mut again = std::process::Command::new("/proc/self/exe");
        again.args(std::env::args_os().skip(1)).env(ALLOCATOR, "thp:always");
        // It returns if it fails only; then small pages must do.
        let _slower = again.exec();
    }
}

fn list(as_json: bool) -> Result<Exit, Failure> {
    if as_json {
        let claims: Vec<_> = ALL
            .iter()
            .map(|claim| {
                let parameters: Vec<_> = claim
                    .parameters
                    .iter()
                    .map(|one| {
                        json!({"name": one.name, "help": one.help, "takes": one.range(), "default": one.default().to_string()})
                    })
                    .collect();
                json!({
                    "name": claim.name,
                    "statement": claim.statement,
                    "reference": claim.reference,
                    "control": claim.control.statement,
                    "parameters": parameters,
                })
            })
            .collect();
        println!("{}", json!({"schema": 1, "claims": claims}));
        return Ok(Exit::Holds);
    }
    for claim in ALL {
        println!("{}\n  {}\n  {}", claim.name, claim.statement, claim.reference);
    }
    eprintln!("\nrun one with `archipel lab run NAME`, all with `archipel lab report --out lab.html`");
    Ok(Exit::Holds)
}

fn run_one(as_json: bool, words: &[String]) -> Result<Exit, Failure> {
    let name = words.first().map_or("", String::as_str);
    let claim = lab::find(name).ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|claim| claim.name).collect();
        Failure::usage(anyhow!("there is no claim called {name}; there are {}", names.join(", ")))
    })?;
    let matches = match command(claim).try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => {
            // As in `main`: help is an answer, the rest a usage error.
            let _ = error.print();
            return Ok(if error.use_stderr() { Exit::Usage } else { Exit::Holds });
        }
    };
    let as_json = as_json || matches.get_flag("json");
    let seed = matches.get_one::<u64>("seed").copied().unwrap_or(DEFAULT_SEED);
    let told = told(claim, &matches);
    let (bar, phases) = (Bar::new(claim.name), RefCell::new(Phases::default()));
    let progress = |progress: Progress<'_>| {
        phases.borrow_mut().note(progress);
        bar.show(progress);
    };
    let run = Run::new(claim, seed, &told, &progress).map_err(Failure::usage)?;
    let began = Instant::now();
    let judgement = judge(claim, &run);
    bar.end();
    phases.borrow_mut().end();
    if let Some(file) = matches.get_one::<PathBuf>("svg") {
        let plot = judgement.findings.plot.as_ref();
        let plot = plot.with_context(|| format!("{} draws nothing", claim.name)).map_err(Failure::usage)?;
        save(file, &plot.svg())?;
    }
    if as_json {
        println!("{}", judgement.json());
    } else {
        print(&judgement);
    }
    // Not a figure: it differs from run to run, and a figure does not.
    phases.borrow().tell();
    eprintln!("took {:.1} s{}", began.elapsed().as_secs_f64(), memory());
    Ok(exit(judgement.verdict()))
}

const DEFAULT_SEED: u64 = 1;

/// The command line of one claim.
fn command(claim: &'static Claim) -> Command {
    let mut command = Command::new(claim.name)
        .bin_name(format!("archipel lab run {}", claim.name))
        .about(claim.statement)
        .max_term_width(100)
        .after_help(format!(
            "{}\n\nControl: {}\n\nExit codes: 0 it holds, 1 it fails, 2 usage, 3 not judged.",
            claim.reference, claim.control.statement
        ));
    for parameter in claim.parameters {
        let help = format!("{}: {} [default: {}]", parameter.help, parameter.range(), parameter.default());
        command = command.arg(Arg::new(parameter.name).long(parameter.name).value_name("N").help(help));
    }
    command
        .arg(
            Arg::new("seed")
                .long("seed")
                .value_name("N")
                .value_parser(value_parser!(u64))
                .help("Decides everything that is drawn [default: 1]"),
        )
        .arg(
            Arg::new("svg")
                .long("svg")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Write the plot to this file"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("One JSON object on stdout"))
}

fn told<'a>(claim: &Claim, matches: &'a ArgMatches) -> Vec<(&'static str, &'a str)> {
    let value = |name: &'static str| Some((name, matches.get_one::<String>(name)?.as_str()));
    claim.parameters.iter().filter_map(|parameter| value(parameter.name)).collect()
}

fn report(as_json: bool, out: Option<&Path>, seed: u64, small: bool) -> Result<Exit, Failure> {
    let mut judgements = Vec::new();
    for &claim in ALL {
        let bar = Bar::new(claim.name);
        let progress = |progress: Progress<'_>| bar.show(progress);
        let told = if small { claim.small } else { &[] };
        let run = Run::new(claim, seed, told, &progress)?;
        let judgement = judge(claim, &run);
        bar.end();
        eprintln!("{}: {}", claim.name, judgement.verdict().word());
        judgements.push(judgement);
    }
    let page = lab::report::html(&judgements, env!("CARGO_PKG_VERSION"));
    match out {
        Some(file) => save(file, &page)?,
        None if as_json => {}
        None => Stdout.write_all(page.as_bytes())?,
    }
    if as_json {
        let claims: Vec<_> = judgements.iter().map(Judgement::json).collect();
        println!("{}", json!({"schema": 1, "claims": claims}));
    }
    let verdicts = || judgements.iter().map(Judgement::verdict);
    Ok(if verdicts().any(|one| one == Verdict::Fails) {
        Exit::Fails
    } else if verdicts().any(|one| one == Verdict::NotJudged) {
        Exit::NotJudged
    } else {
        Exit::Holds
    })
}

fn exit(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Holds => Exit::Holds,
        Verdict::Fails => Exit::Fails,
        Verdict::NotJudged => Exit::NotJudged,
    }
}

fn save(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))?;
    Ok(())
}

fn print(one: &Judgement) {
    println!("{}: {} (seed {})\n{}\n", one.claim.name, one.verdict().word(), one.seed, one.claim.statement);
    table(&one.findings);
    println!("\nControl: {}", if one.control.hold() { "passed, and should not have" } else { "caught" });
    println!("{}\n", one.claim.control.statement);
    table(&one.control);
    println!("\ntrace hash {:016x}", one.findings.trace_hash);
}

fn table(findings: &Findings) {
    let wide = |width: fn(&lab::Figure) -> usize| findings.figures.iter().map(width).max().unwrap_or(0);
    let name = wide(|figure| figure.name.chars().count());
    let value = wide(|figure| number(figure.value).chars().count());
    for figure in &findings.figures {
        let verdict = match (figure.bound, figure.holds()) {
            (Bound::Told, _) => "",
            (_, true) => "holds",
            (_, false) => "FAILS",
        };
        println!(
            "  {:<name$}  {:>value$} {:<9} {:<16} {verdict}",
            figure.name,
            number(figure.value),
            figure.unit,
            figure.bound.to_string()
        );
    }
}

/// The most memory that the process had, if the system tells.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let peak = peak.and_then(|kib| kib.trim().parse::<u64>().ok());
    peak.map_or(String::new(), |kib| format!(", {} MiB at most", kib / 1024))
}

/// What a run spent its time on, as its progress tells.
#[derive(Default)]
struct Phases(Vec<Phase>);

struct Phase {
    what: String,
    /// CPU seconds of this thread, first at its beginning, then at its end.
    seconds: (f64, f64),
    delivered: (u64, u64),
}

/// Phases shorter than this are not told, in seconds.
const PHASE_SECONDS_MIN: f64 = 0.5;

impl Phases {
    fn note(&mut self, progress: Progress<'_>) {
        let (now, delivered) = (cpu_seconds(), progress.delivered.unwrap_or(0));
        if let Some(last) = self.0.last_mut() {
            last.seconds.1 = now;
            if last.what == progress.what && delivered >= last.delivered.1 {
                last.delivered.1 = delivered;
                return;
            }
        }
        let what = progress.what.to_owned();
        self.0.push(Phase { what, seconds: (now, now), delivered: (delivered, delivered) });
    }

    fn end(&mut self) {
        if let Some(last) = self.0.last_mut() {
            last.seconds.1 = cpu_seconds();
        }
    }

    fn tell(&self) {
        for Phase { what, seconds, delivered } in &self.0 {
            let (took, messages) = (seconds.1 - seconds.0, delivered.1 - delivered.0);
            if took < PHASE_SECONDS_MIN {
                continue;
            }
            let rate = messages as f64 / took / 1e6;
            let swarm =
                if messages > 0 { format!(", {messages} messages, {rate:.2}M/s") } else { String::new() };
            eprintln!("{what}: {took:.1} s of CPU{swarm}");
        }
    }
}

/// CPU time of this thread, in seconds; 0 where the kernel does not tell.
fn cpu_seconds() -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = told.split_whitespace().next().and_then(|text| text.parse::<f64>().ok());
    nanoseconds.unwrap_or_default() / 1e9
}

/// Progress on stderr; hidden where nobody watches.
struct Bar(ProgressBar);

impl Bar {
    fn new(name: &'static str) -> Bar {
        let style = ProgressStyle::with_template("{prefix}: {msg} {wide_bar} {pos}/{len}");
        let bar = ProgressBar::new(1).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(name);
        Bar(bar)
    }

    fn show(&self, progress: Progress<'_>) {
        if self.0.message() != progress.what {
            self.0.set_message(progress.what.to_owned());
        }
        self.0.set_length(progress.of);
        self.0.set_position(progress.done);
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}
