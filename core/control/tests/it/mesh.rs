//! Revisions of the proxies' settings: they follow each other, are remembered within bounds, and read back.

use std::collections::BTreeSet;

use control::mesh::*;
use control::*;
use kernel::{Millis, NodeId, Version};
use proptest::prelude::*;

use super::world::{World, name, part};

/// A cluster that knows of revisions.
fn cluster() -> World {
    let mut world = World::of(2);
    world.ask(Operation::Raise { to: Version::NEWEST }).expect("it may");
    world
}

fn shop(text: &str) -> MeshSettings {
    MeshSettings {
        listeners: vec![part("web", &[], "port = 80\n")],
        services: vec![part("shop", &[], text)],
        routes: vec![part("*/", &["shop"], "service = [\"shop\"]\n")],
    }
}

fn set(after: Option<u64>, settings: MeshSettings) -> Operation {
    Operation::SetMesh { after, settings }
}

const fn restore(after: Option<u64>, to: u64) -> Operation {
    Operation::RestoreMesh { after, to }
}

#[test]
fn each_revision_follows_the_one_before_and_says_whose_it_is() {
    let mut world = cluster();
    let other = |after, is| Err(Refused::OtherRevision { after, is });
    let unknown = |to, oldest, newest| Err(Refused::RevisionUnknown { to, oldest, newest });
    #[rustfmt::skip] // columns
    let table = [
        // asked                             refused            revision  settings
        (set(Some(1), shop("a")),            other(1, 0),       0,        None),
        (restore(None, 1),                   unknown(1, 0, 0),  0,        None),
        (set(Some(0), shop("a")),            Ok(()),            1,        Some(shop("a"))),
        (set(Some(0), shop("b")),            other(0, 1),       1,        Some(shop("a"))), // somebody was first
        (set(None, shop("b")),               Ok(()),            2,        Some(shop("b"))),
        (restore(Some(1), 1),                other(1, 2),       2,        Some(shop("b"))),
        (restore(Some(2), 1),                Ok(()),            3,        Some(shop("a"))),
        (restore(None, 9),                   unknown(9, 1, 3),  3,        Some(shop("a"))),
        (restore(None, 0),                   Ok(()),            4,        None),            // what files say
        (restore(Some(4), 2),                Ok(()),            5,        Some(shop("b"))),
        (set(Some(5), MeshSettings::default()), Ok(()),         6,        Some(MeshSettings::default())),
    ];
    for (operation, expected, number, settings) in table {
        let (text, before) = (operation.to_string(), world.state.clone());
        let result = world.ask(operation.clone());
        assert_eq!(result.clone().map(drop), expected, "{text}");
        let state = &world.state;
        assert_eq!(state.revision_number(), number, "{text}");
        assert_eq!(state.revision().and_then(|one| one.settings.clone()), settings, "{text}");
        assert_eq!(diff(&before, state, NodeId([0; 32])).mesh, result.is_ok(), "{text}");
        if let Ok(outcome) = result {
            let revision = state.revision().expect("there is one");
            assert_eq!((revision.version, revision.by.as_str()), (outcome.version, "test"), "{text}");
            assert_eq!(revision.at, state.now(), "{text}");
            let source = match operation {
                Operation::RestoreMesh { to, .. } => Source::Revision(to),
                _ => Source::Given,
            };
            assert_eq!(revision.source, source, "{text}");
        }
    }
    let trail: Vec<&str> = world.state.audit().iter().map(|line| line.what.as_str()).collect();
    assert!(trail.contains(&"set the proxies: 1 listeners, 1 services, 1 routes"), "{trail:?}");
    assert!(trail.contains(&"set the proxies as revision 1 did"), "{trail:?}");
}

#[test]
fn what_is_unsound_is_refused_alike_everywhere_and_changes_nothing() {
    let services = |list| MeshSettings { services: list, ..MeshSettings::default() };
    let one = |part| services(vec![part]);
    let routes = |list| MeshSettings { routes: list, ..shop("") };
    let many = |count: usize| (0..count).map(|at| part(&format!("s{at}"), &[], "")).collect::<Vec<Part>>();
    let long = |count: usize| "x".repeat(count);
    let (kind, name) = (Kind::Service, "s".to_owned());
    let names: Vec<String> = (0..=USES_MAX).map(|at| format!("s{at}")).collect();
    let uses: BTreeSet<String> = names.iter().cloned().collect();
    let full: Vec<Part> = (0..17).map(|at| part(&format!("{at:02}"), &[], &long(PART_BYTES_MAX))).collect();
    #[rustfmt::skip] // columns
    let table = [
        (shop(""),                                             None),
        (one(part("s", &[], "a = 1\nb = 2\n")),                None),
        (one(part("s", &[], &long(PART_BYTES_MAX))),           None),
        (one(part("s", &[], &long(PART_BYTES_MAX + 1))),       Some(Unsound::Text { kind, name: name.clone() })),
        (one(part("s", &[], "a = \u{7}")),                      Some(Unsound::Text { kind, name: name.clone() })),
        (one(part("s", &[], "a\r\n")),                         Some(Unsound::Text { kind, name: name.clone() })),
        (one(part("", &[], "")),                               Some(Unsound::Name { kind })),
        (one(part("a\nb", &[], "")),                           Some(Unsound::Name { kind })),
        (one(part(&long(PART_NAME_BYTES_MAX), &[], "")),       None),
        (one(part(&long(PART_NAME_BYTES_MAX + 1), &[], "")),   Some(Unsound::Name { kind })),
        (services(many(SERVICES_MAX)),                         None),
        (services(many(SERVICES_MAX + 1)),                     Some(Unsound::Many { kind, count: SERVICES_MAX + 1 })),
        (services(vec![part("s", &[], ""), part("s", &[], "x")]), Some(Unsound::Twice { kind, name: name.clone() })),
        // A route may be called as a service.
        (routes(vec![part("shop", &["shop"], "")]),            None),
        (routes(vec![part("r", &["shop", "cart"], "")]),
            Some(Unsound::NoService { kind: Kind::Route, name: "r".into(), service: "cart".into() })),
        (one(Part { name: "s".into(), uses, text: String::new() }),
            Some(Unsound::Uses { kind, name, count: USES_MAX + 1 })),
        (services(full.clone()),                               Some(Unsound::Bytes { bytes: 17 * (PART_BYTES_MAX + 2) })),
        (services(full[1..16].to_vec()),                       None),
    ];
    for (settings, expected) in table {
        let mut world = cluster();
        assert_eq!(settings.check().err(), expected);
        let result = world.ask(set(None, settings)).map(drop);
        assert_eq!(result, expected.map_or(Ok(()), |unsound| Err(Refused::Mesh(unsound))));
        assert_eq!(State::decode(&world.state.encode()), Ok(world.state));
    }
}

#[test]
fn old_revisions_are_forgotten_by_number_and_by_length_and_the_last_one_never() {
    let mut world = cluster();
    for number in 1..=REVISIONS_MAX as u64 + 4 {
        world.ask(set(None, shop(&format!("a = {number}")))).expect("it may");
        let kept: Vec<u64> = world.state.revisions().iter().map(|one| one.number).collect();
        let first = number.saturating_sub(REVISIONS_MAX as u64 - 1).max(1);
        assert_eq!(kept, (first..=number).collect::<Vec<u64>>());
    }
    assert!(matches!(world.ask(restore(None, 4)), Err(Refused::RevisionUnknown { to: 4, oldest: 5, .. })));
    world.ask(restore(None, 5)).expect("it is remembered");
    // Large ones take the place of several.
    let large = |letter: char| {
        let text = letter.to_string().repeat(PART_BYTES_MAX);
        let services = (0..15).map(|at| part(&format!("s{at}"), &[], &text)).collect();
        MeshSettings { services, ..MeshSettings::default() }
    };
    for letter in 'a'..'i' {
        let large = large(letter);
        world.ask(set(None, large.clone())).expect("it may");
        let bytes: usize = world.state.revisions().iter().map(|one| one.bytes()).sum();
        assert!(bytes <= REVISIONS_BYTES_MAX);
        assert_eq!(world.state.revision().and_then(|one| one.settings.as_ref()), Some(&large));
        assert_eq!(State::decode(&world.state.encode()), Ok(world.state.clone()));
    }
    assert_eq!(world.state.revisions().len(), REVISIONS_BYTES_MAX / large('h').bytes());
    // The same again is no revision, for whoever asks; but it is refused to who expects another.
    let number = world.state.revision_number();
    world.ask(set(None, large('h'))).expect("it is so");
    assert_eq!(world.state.revision_number(), number);
    assert_eq!(
        world.ask(set(Some(number - 1), large('h'))),
        Err(Refused::OtherRevision { after: number - 1, is: number })
    );
}

fn parts(kind: &'static str) -> impl Strategy<Value = Vec<Part>> {
    proptest::collection::vec("[a-z =\"\n]{0,40}", 0..5).prop_map(move |texts| {
        let named = |(at, text): (usize, String)| part(&format!("{kind}{at}"), &[], &text);
        texts.into_iter().enumerate().map(named).collect()
    })
}

fn settings() -> impl Strategy<Value = MeshSettings> {
    (parts("l"), parts("s"), parts("r"), any::<u64>()).prop_map(|(listeners, services, mut routes, bits)| {
        for (at, route) in routes.iter_mut().enumerate() {
            let used = services.iter().enumerate().filter(|(of, _)| bits >> (at * 8 + of) & 1 == 1);
            route.uses = used.map(|(_, service)| service.name.clone()).collect();
        }
        MeshSettings { listeners, services, routes }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn requests_and_states_with_settings_read_back_and_cut_ones_do_not(
        all in proptest::collection::vec(settings(), 1..6), after: Option<u64>, cut: usize,
    ) {
        let mut world = cluster();
        for settings in all {
            let operation = set(after, settings.clone());
            let request = Request { id: OperationId([7; 16]), by: name("x"), at: Millis(3), operation };
            let bytes = request.encode();
            prop_assert_eq!(Request::decode(&bytes), Ok(request));
            prop_assert!(Request::decode(&bytes[..cut % bytes.len()]).is_err());
            prop_assert_eq!(settings.check(), Ok(()));
            world.ask(set(None, settings)).expect("it is sound");
        }
        let bytes = world.state.encode();
        prop_assert_eq!(State::decode(&bytes), Ok(world.state.clone()));
        prop_assert!(State::decode(&bytes[..cut % bytes.len()]).is_err());
        // Who is one version behind reads none of it, and does not guess.
        let mut older = bytes;
        older[0] = Version::OLDEST.0;
        prop_assert!(State::decode(&older).is_err());
    }
}
