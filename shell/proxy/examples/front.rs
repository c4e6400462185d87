//! A proxy by itself, in front of one endpoint, until it is killed: for profilers, without the rest of a node.
//!
//! `cargo run --release -p proxy --example front -- 127.0.0.1:8080 127.0.0.1:9000`

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh::limit::Rate;
use mesh::retry::RetryOptions;
use mesh::route::{HostRule, PathRule, Routes, Rule, Split};
use mesh::upstream::UpstreamOptions;
use proxy::{
    Allowed, EndpointPlan, KeyOf, Limits, ListenerKind, ListenerPlan, Meters, Plan, Proxy, RatePlan,
    RoutePlan, ServicePlan, Telling,
};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, endpoint] = &words[..] else {
        return Err("give an address to listen on and an endpoint".into());
    };
    let address: SocketAddr = address.parse()?;
    let endpoint = EndpointPlan { address: endpoint.parse()?, weight: 1, node: None };
    let rate =
        RatePlan { rate: Rate::new(1_000_000, 1000, 1_000_000)?, key: KeyOf::Client, keys_max: 65_536 };
    let (host, path) = (HostRule::Any, PathRule::prefix("/")?);
    let plan = Plan {
        listeners: vec![ListenerPlan {
            name: "web".into(),
            address,
            kind: ListenerKind::Http,
            tls: None,
            sources: None,
        }],
        services: vec![ServicePlan {
            name: "one".into(),
            endpoints: vec![endpoint],
            discovered: false,
            options: UpstreamOptions::default(),
            connect_ms: 1_000,
            idle_ms: 55_000,
            idle_max: 512,
            tls: None,
            send_proxy: None,
            sticky: None,
            http2: false,
            retry: RetryOptions::default(),
        }],
        routes: vec![RoutePlan {
            name: "all".into(),
            split: Split::new(&[(0, 1)]).ok_or("a part")?,
            rewrite: None,
            retry: RetryOptions::default(),
            retry_statuses: vec![502, 503, 504],
            mirror: None,
            priority: mesh::limit::Priority::Normal,
            rate: Some(rate),
            key: KeyOf::Client,
            allow: Allowed::Anybody,
            upgrade: false,
            connect: false,
        }],
        index: Routes::new(&[Rule { host, path, methods: Vec::new(), fields: Vec::new() }])?,
        limits: Limits::default(),
        telling: Telling { trace: true, access_sample: 1, ..Telling::default() },
    };
    let proxy = Proxy::start(plan, 1, Arc::<Meters>::default())?;
    println!("{:?}", proxy.addresses());
    loop {
        std::thread::park();
    }
}
