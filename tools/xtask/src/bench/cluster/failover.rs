//! How long writes pause when a node that leads a third of the partitions is killed, or is asked to stop.
//!
//! Again and again on one cluster, each node in turn: clients write to every partition through the other two; the node goes;
//! when every client has had a write that it began afterwards, they end. The node is started again, and the next one is due
//! when each node sees that all copies follow a leader, and it leads its share: with two of three nodes away nobody could write.

use super::super::Setting;
use super::super::report::{Bar, Report};
use super::writers::{Names, Seen, Writers};
use super::{PARTITIONS, SHARDED, own, sharded};
use crate::trio::Trio;
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

/// Clients write for so long before the node goes. The one that went before it is back for so long, too: copies that have
/// just been loaded vote for nobody for an election timeout.
const WARM: Duration = Duration::from_secs(2);
/// And for so long afterwards: longer than any pause that is a result and no failure.
const AFTER: Duration = Duration::from_secs(6);
/// How long a node may take to lead its share again.
const SHARE_SECONDS_MAX: u64 = 60;
/// A third of the partitions, less one or two that others have at the moment.
const SHARE: u64 = PARTITIONS as u64 / 3 - 1;

/// How a node goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Going {
    Killed,
    Stopped,
}

/// What was found, over all times.
#[derive(Default)]
struct Found {
    pauses_ms: Vec<f64>,
    errors: u64,
    unknown: u64,
    reconnects: u64,
    lost: u64,
}

/// Kills and stops nodes so often.
pub fn run(setting: &Setting, report: &mut Report, kills: u32, stops: u32) -> Result<()> {
    let dir = setting.scratch()?;
    let mut trio = sharded(setting, dir.path())?;
    let names = Names::find(trio.port(0)?)?;
    let killed = repeat(&mut trio, &names, Going::Killed, kills)?;
    let stopped = repeat(&mut trio, &names, Going::Stopped, stops)?;
    trio.stop()?;
    if kills > 0 {
        let name = format!("kill -9, {kills} times");
        rows(report, &name, &killed, "until all write", (None, Some(Bar::AtMost(2000.0))), None);
    }
    if stops > 0 {
        let name = format!("SIGTERM, {stops} times");
        let bar = Some(Bar::AtMost(200.0));
        rows(report, &name, &stopped, "longest write", (bar, None), Some(Bar::AtMost(0.0)));
    }
    Ok(())
}

fn rows(
    report: &mut Report,
    work: &str,
    found: &Found,
    metric: &'static str,
    (all, p99): (Option<Bar>, Option<Bar>),
    errors: Option<Bar>,
) {
    #[expect(clippy::cast_precision_loss, reason = "they are few")]
    let count = |count: u64| [count as f64];
    own(report, work, (metric, "ms"), &found.pauses_ms, all);
    own(report, work, ("p99 of these", "ms"), &[rank(&found.pauses_ms, 0.99)], p99);
    own(report, work, ("errors", "replies"), &count(found.errors), errors);
    own(report, work, ("lost writes", "keys"), &count(found.lost), Some(Bar::AtMost(0.0)));
    own(report, work, ("-UNKNOWN", "replies"), &count(found.unknown), None);
    own(report, work, ("reconnects", "times"), &count(found.reconnects), None);
}

fn repeat(trio: &mut Trio, names: &Names, going: Going, times: u32) -> Result<Found> {
    let mut found = Found::default();
    for time in 0..times {
        let victim = usize::try_from(time)? % 3;
        let stays = [(victim + 1) % 3, (victim + 2) % 3];
        let leads = await_share(trio, stays[0], victim)?;
        let ports = [trio.port(stays[0])?, trio.port(stays[1])?];
        let writers = Writers::begin(names, &ports);
        std::thread::sleep(WARM);
        let moment = Instant::now();
        match going {
            Going::Killed => trio.kill(victim)?,
            Going::Stopped => trio.stop_one(victim)?,
        }
        std::thread::sleep(AFTER.saturating_sub(moment.elapsed()));
        let seen = writers.end()?;
        let pause = judge(&seen, going, moment, ports[0], &mut found)?;
        eprintln!("{going:?} {} of {times}: led {leads}, {pause:.0} ms", time + 1);
        trio.start(victim)?;
    }
    Ok(found)
}

/// Adds what the clients saw. The pause in milliseconds.
fn judge(seen: &[Seen], going: Going, moment: Instant, port: u16, found: &mut Found) -> Result<f64> {
    let mut longest = Duration::ZERO;
    for one in seen {
        let pause = match going {
            Going::Killed => one.resumed(moment).context("a client could not write any more")?,
            Going::Stopped => one.longest(moment),
        };
        longest = longest.max(pause);
        found.unknown += one.unknown;
        found.reconnects += one.reconnects;
        found.errors += one.errors.len() as u64;
        found.lost += u64::from(!one.is_kept(port)?);
        if let Some(error) = one.errors.first() {
            eprintln!("a client got {} errors, the first: {error}", one.errors.len());
        }
    }
    let millis = longest.as_secs_f64() * 1000.0;
    found.pauses_ms.push(millis);
    Ok(millis)
}

/// Waits until all nodes see that the cluster is whole and `node` leads about a third of the partitions; how many.
fn await_share(trio: &Trio, asked: usize, node: usize) -> Result<u64> {
    (0..3).try_for_each(|at| trio.wait_whole(at))?;
    let end = Instant::now() + Duration::from_secs(SHARE_SECONDS_MAX);
    loop {
        let leads = trio.leads(asked, SHARDED)?;
        if leads[node] >= SHARE {
            return Ok(leads[node]);
        }
        if Instant::now() > end {
            bail!("after {SHARE_SECONDS_MAX} s the nodes lead {leads:?} partitions: number {node} too few");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The smallest figure that at least this part of all does not exceed.
fn rank(figures: &[f64], part: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "they are few")]
    let place = (sorted.len() as f64 * part).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between 0 and their number"
    )]
    sorted.get((place as usize).saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_of_figures_that_were_seen() {
        let figures: Vec<f64> = (1..=50).rev().map(f64::from).collect();
        assert!((rank(&figures, 0.99) - 50.0).abs() < f64::EPSILON);
        assert!((rank(&figures, 0.5) - 25.0).abs() < f64::EPSILON);
        assert!((rank(&figures[..1], 0.99) - 50.0).abs() < f64::EPSILON);
        assert!(rank(&[], 0.99).is_nan());
    }
}
