//! Each campaign, short, on the real binary.
//!
//! The binary is `ARCHIPEL_BINARY`, or that of this target directory, built if it is missing or older than
//! the sources.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use chaos::campaign::{Failure, Report, Setting};
use chaos::cluster::{self, Length, Plant, discovery, rolling};

fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(named) = std::env::var_os("ARCHIPEL_BINARY") {
            return named.into();
        }
        let exe = std::env::current_exe().expect("a test knows its own path");
        let target = exe.ancestors().nth(3).expect("a test is in target/<profile>/deps");
        let newest = newest(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
        let fresh = |path: &PathBuf| written(path).is_ok_and(|built| built > newest);
        let built = [target.join("release/archipel"), target.join("debug/archipel")];
        if let Some(path) = built.iter().find(|path| fresh(path)) {
            return path.clone();
        }
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "archipel", "--target-dir"])
            .arg(target)
            .status()
            .expect("cargo runs");
        assert!(status.success(), "archipel cannot be built: {status}");
        target.join("debug/archipel")
    })
}

fn written(path: &Path) -> std::io::Result<SystemTime> {
    std::fs::metadata(path)?.modified()
}

/// When the newest of the node's sources was written.
fn newest(root: &Path) -> SystemTime {
    let mut newest = SystemTime::UNIX_EPOCH;
    let mut folders: Vec<PathBuf> = ["core", "shell", "app"].iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the sources can be read") {
            let path = entry.expect("the sources can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                newest = newest.max(written(&path).expect("the sources can be read"));
            }
        }
    }
    newest
}

type Campaign = fn(&Setting, &mut dyn FnMut(&str)) -> Report;

fn holds(campaign: Campaign, durability: &'static str, rounds: u64) {
    if let Some(report) = judged(&setting(durability, rounds), campaign) {
        assert_eq!(report.exit_code(), 0, "{}", report.text());
    }
}

fn setting(durability: &'static str, rounds: u64) -> Setting {
    Setting { binary: binary().to_owned(), seed: 42, rounds, durability, words: String::new() }
}

/// What a campaign reports, unless this machine cannot judge it.
fn judged(
    setting: &Setting,
    campaign: impl FnOnce(&Setting, &mut dyn FnMut(&str)) -> Report,
) -> Option<Report> {
    let report = campaign(setting, &mut |line| eprintln!("{line}"));
    let Err(Failure::NotJudged(why)) = &report.result else { return Some(report) };
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
    eprintln!("\n*** SKIPPED: {}: {why} ***\n", report.name);
    None
}

fn cluster(seed: u64, rounds: u64, plant: Option<Plant>) -> Option<Report> {
    let options = cluster::Options { nodes: cluster::NODES, length: Length::Short, from: 1, plant };
    let setting = Setting { seed, words: " --short".into(), ..setting("always", rounds) };
    judged(&setting, |setting, progress| cluster::run(setting, &options, progress))
}

#[test]
fn kills_under_load_lose_nothing_that_was_acknowledged() {
    holds(chaos::kill::run, "always", 6);
}

#[test]
fn everysec_survives_a_kill_of_the_process_as_a_whole() {
    holds(chaos::kill::run, "everysec", 2);
}

#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged() {
    holds(chaos::power_cut::run, "always", 1);
}

#[test]
fn a_power_cut_takes_at_most_a_second_of_everysec() {
    holds(chaos::power_cut::run, "everysec", 1);
}

#[test]
fn a_full_disk_refuses_writes_until_space_is_back() {
    holds(chaos::full_disk::run, "always", 1);
}

#[test]
fn a_flipped_bit_is_refused_or_harmless() {
    holds(chaos::bit_flip::run, "always", 12);
}

#[test]
fn a_cluster_that_is_killed_stopped_and_cut_apart_loses_nothing_and_is_linearizable() {
    if let Some(report) = cluster(42, 10, None) {
        assert_eq!(report.exit_code(), 0, "{}", report.text());
    }
}

/// The negative controls: what was never written is missed, and so is what older data does not have.
#[test]
fn a_write_that_a_cluster_never_had_and_one_that_it_lost_are_found() {
    for plant in [Plant::Claim, Plant::Rollback] {
        if let Some(report) = cluster(42, 1, Some(plant)) {
            assert_eq!(report.exit_code(), 1, "{plant:?}: {}", report.text());
            assert!(report.text().contains(cluster::UNEXPLAINED), "{plant:?}: {}", report.text());
        }
    }
}

#[test]
fn a_rolling_restart_tells_clients_of_other_nodes_no_error() {
    let options = rolling::Options { nodes: cluster::NODES, old_binary: None };
    let report = judged(&setting("always", 1), |setting, progress| rolling::run(setting, &options, progress));
    if let Some(report) = report {
        assert_eq!(report.exit_code(), 0, "{}", report.text());
    }
}

fn discovery(rounds: u64, leak: bool) -> Option<Report> {
    let options = discovery::Options { nodes: cluster::NODES, leak };
    judged(&setting("always", rounds), |setting, progress| discovery::run(setting, &options, progress))
}

#[test]
fn in_a_partition_every_side_finds_what_it_can_reach_and_takes_registrations() {
    if let Some(report) = discovery(3, false) {
        assert_eq!(report.exit_code(), 0, "{}", report.text());
    }
}

/// The negative control: nothing is cut, and the sides know of each other's registrations.
#[test]
fn a_cut_that_lets_registrations_through_is_found() {
    if let Some(report) = discovery(1, true) {
        assert_eq!(report.exit_code(), 1, "{}", report.text());
        assert!(report.text().contains(discovery::BEYOND), "{}", report.text());
    }
}

/// The negative control: a program that ends at once is a node that does not start.
#[test]
fn a_node_that_does_not_start_fails() {
    let setting = Setting {
        binary: "/bin/false".into(),
        seed: 42,
        rounds: 1,
        durability: "always",
        words: String::new(),
    };
    let report = chaos::kill::run(&setting, &mut |_| {});
    assert_eq!(report.exit_code(), 1, "{}", report.text());
}
