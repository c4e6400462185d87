//! Long runs of the simulator by command.
fn main() {
    let from: u64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(0);
    let n: u64 = std::env::args().nth(2).and_then(|a| a.parse().ok()).unwrap_or(1);
    let (mut bad, mut replies, mut crashes, mut refusals) = (0, 0, 0, 0);
    std::panic::set_hook(Box::new(|_| {}));
    for seed in from..from + n {
        match sim::run(seed) {
            Ok(o) => {
                replies += o.replies;
                crashes += o.crashes;
                refusals += o.refusals;
            }
            Err(f) => {
                bad += 1;
                println!("seed {} {}", f.seed, f.what);
                if n == 1 {
                    for e in &f.events {
                        println!("{e}");
                    }
                }
            }
        }
    }
    println!("{bad} bad, {replies} replies, {crashes} crashes {refusals} refusals");
}
