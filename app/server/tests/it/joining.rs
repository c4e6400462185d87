//! A newcomer and the member that made its token, over a real link.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use control::{Name, Newcomer, Operation, OperationId, Request, State, Welcome};
use fabric::Identity;
use fabric::join::{ClusterId, Token};
use fabric::link::{Event, Members, Settings, Standalone};
use kernel::{Millis, NodeId, PeerId, Spoken};
use node::cluster::mind::Admission;
use runtime::Clock;
use server::cluster::introduce::{Introducer, TOKEN_SECONDS_MAX};
use server::cluster::join::{Answer, JoinError, join, join_any, token};

/// A member with its cluster's state, in a thread of its own that lets in who has a token.
struct Member {
    id: NodeId,
    address: SocketAddr,
    tokens: Sender<(Duration, Sender<Token>)>,
    end: Sender<()>,
    thread: std::thread::JoinHandle<State>,
}

fn identity(n: u8) -> Identity {
    Identity::from_seed(&[n; 32])
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn newcomer() -> Newcomer {
    Newcomer { zone: name("b"), addresses: vec!["10.0.0.2:7401".parse().unwrap()] }
}

impl Member {
    fn start() -> Member {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, id) = (listener.local_addr().unwrap(), identity(1).id());
        let ((tokens, wanted), (end, ended)) = (channel(), channel());
        let thread = std::thread::spawn(move || serve(listener, address, &wanted, &ended));
        Member { id, address, tokens, end, thread }
    }

    fn token(&self, life: Duration) -> Token {
        let (give, given) = channel();
        self.tokens.send((life, give)).unwrap();
        given.recv().unwrap()
    }

    fn stop(self) -> State {
        self.end.send(()).unwrap();
        self.thread.join().unwrap()
    }
}

fn serve(
    listener: TcpListener,
    address: SocketAddr,
    wanted: &Receiver<(Duration, Sender<Token>)>,
    ended: &Receiver<()>,
) -> State {
    let (cluster, node, mut clock) = (ClusterId([4; 16]), identity(1).id(), Clock::new());
    let mut state = State::new();
    let mut asked = 0;
    let mut ask = |state: &mut State, at: Millis, operation| {
        asked += 1;
        let id = OperationId([asked; 16]);
        state.apply(&Request { id, by: name("test"), at, operation })
    };
    let addresses = vec![address];
    let made = Operation::CreateCluster { cluster, node, zone: name("a"), addresses: addresses.clone() };
    ask(&mut state, clock.now().millis(), made).unwrap();
    let introducer = Introducer::new(cluster, node, addresses);
    let members = Arc::new(Members::new([node].into()));
    let settings = Settings { incarnation: 1, seed: 1, spoken: Spoken::ALL };
    let mut alone = Standalone::new(&identity(1), &members, settings, 64, Some(listener)).unwrap();
    let mut events = Vec::new();
    while ended.try_recv().is_err() {
        let now = alone.begin_turn(Duration::from_millis(1), || clock.now(), &mut |_, _, _| ()).unwrap();
        for (life, give) in wanted.try_iter() {
            let (token, operation) = introducer.issue(now.millis(), life).unwrap();
            ask(&mut state, now.millis(), operation).unwrap();
            give.send(token).unwrap();
        }
        alone.links.take_events(&mut events);
        for event in events.drain(..) {
            let Event::Joining { id, node, request, binding, .. } = event else { continue };
            let judged = introducer.examine(now.millis(), &state, (node, &request, &binding));
            let admitted = judged.map_err(|unwelcome| unwelcome.to_string()).and_then(
                |Admission { token, hash, node, newcomer }| {
                    let Newcomer { zone, addresses } = newcomer;
                    let operation = Operation::Admit { token, hash, node, zone, addresses };
                    ask(&mut state, now.millis(), operation).map_err(|refused| refused.to_string())
                },
            );
            let answer = match admitted {
                Ok(_) => Answer::Welcome(Welcome::new(state.roster().unwrap(), node).unwrap()),
                Err(reason) => Answer::Refused(reason),
            };
            assert!(alone.links.answer(id, &answer.encode()));
        }
        alone.end_turn(now, &mut |_, _, _| ());
    }
    state
}

#[test]
fn a_token_is_made_printed_and_used_once() {
    let member = Member::start();
    let (first, second) = (identity(2), identity(3));
    let printed = member.token(Duration::from_secs(600)).to_string();
    let one = token(&format!(" {printed}\n")).unwrap();
    let welcome = join(&first, Spoken::ALL, &one, &newcomer()).unwrap();
    let known: Vec<NodeId> = welcome.roster.members.keys().copied().collect();
    let mut expected = vec![member.id, first.id()];
    expected.sort();
    assert_eq!(known, expected);
    assert_eq!(welcome.roster.members[&first.id()].replica, welcome.replica);
    assert_eq!(welcome.roster.members[&member.id].addresses, [member.address]);
    // It did not hear the answer, and asks again.
    assert_eq!(join(&first, Spoken::ALL, &one, &newcomer()).unwrap().replica, welcome.replica);
    // Another has read the text.
    let refused = join(&second, Spoken::ALL, &one, &newcomer()).unwrap_err();
    assert!(refused.to_string().contains("used by another node"), "{refused}");
    let another = member.token(Duration::from_secs(600));
    assert_ne!(join(&second, Spoken::ALL, &another, &newcomer()).unwrap().replica, welcome.replica);
    let state = member.stop();
    assert_eq!(state.members().len(), 3);
    assert_eq!(state.members()[&first.id()].zone, name("b"));
}

#[test]
fn a_token_that_is_forged_or_of_nobody_lets_nobody_in() {
    let member = Member::start();
    let good = member.token(Duration::from_secs(600));
    let mut forged = good.clone();
    forged.secret.0[0] ^= 1;
    let refused = join(&identity(2), Spoken::ALL, &forged, &newcomer()).unwrap_err();
    assert!(refused.to_string().contains("no such token"), "{refused}");
    let mut elsewhere = good.clone();
    elsewhere.cluster = ClusterId([5; 16]);
    let refused = join(&identity(2), Spoken::ALL, &elsewhere, &newcomer()).unwrap_err();
    assert!(refused.to_string().contains("proof"), "{refused}");
    // Whoever answers there has another key.
    let mut impostor = good.clone();
    impostor.introducer = identity(9).id();
    assert!(matches!(join(&identity(2), Spoken::ALL, &impostor, &newcomer()), Err(JoinError::Silent { .. })));
    // Nobody is at the first address, and the member at the second.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut moved = good.clone();
    moved.addresses = vec![free];
    assert!(matches!(join(&identity(2), Spoken::ALL, &moved, &newcomer()), Err(JoinError::Silent { .. })));
    // All that were asked are named.
    let other = (identity(7).id(), vec![free]);
    let silent =
        join_any((&identity(2), Spoken::ALL), &moved, &[other], &newcomer()).unwrap_err().to_string();
    for asked in [member.id, identity(7).id()] {
        assert!(silent.contains(&format!("{} does not answer at {free}: ", PeerId(asked))), "{silent}");
    }
    moved.addresses.push(member.address);
    join(&identity(2), Spoken::ALL, &moved, &newcomer()).unwrap();
    assert_eq!(member.stop().members().len(), 2);
}

#[test]
fn a_token_is_judged_before_anybody_is_asked() {
    let now = Clock::new().now().millis();
    let introducer = Introducer::new(ClusterId([1; 16]), NodeId([2; 32]), vec![([10, 0, 0, 1], 1).into()]);
    for seconds in [0, TOKEN_SECONDS_MAX + 1] {
        assert!(introducer.issue(now, Duration::from_secs(seconds)).is_err(), "{seconds}");
    }
    let (good, _) = introducer.issue(now, Duration::from_secs(60)).unwrap();
    assert_eq!(token(&good.to_string()).unwrap(), good);
    let expired = Token { expires: Millis(now.0 - 5_000), ..good.clone() };
    let nowhere = Token { addresses: Vec::new(), ..good.clone() };
    #[rustfmt::skip] // columns
    let table = [
        (String::new(),                     "the token is empty"),
        ("hello".to_owned(),                "begins with `archipel1`"),
        (good.to_string().replace('1', "2"), "version"),
        (good.to_string()[..40].to_owned(), "checksum"),
        (expired.to_string(),               "expired"),
        (nowhere.to_string(),               "names no address"),
    ];
    for (text, expected) in table {
        let error = token(&text).unwrap_err().to_string();
        assert!(error.starts_with("--join: ") && error.contains(expected), "{text}: {error}");
    }
}
