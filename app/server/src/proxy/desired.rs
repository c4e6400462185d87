//! The proxies' settings as a cluster keeps them, and as a file says them: the same words, and the same rules.
//!
//! What a cluster's members share are the listeners, services and routes of `[proxy]`, each as the lines that differ from
//! their defaults. As long as a cluster has no revision of them, each node does what its own file says. A revision's services
//! and routes take the place of those of the file, and its listeners too, unless it has none. The other settings of
//! `[proxy]` are each node's own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use control::MeshSettings;
use control::mesh::{Kind, Part, Revision, Unsound};
use thiserror::Error;

use super::route_name;
use crate::config::items::One;
use crate::config::proxy::{ProxyCertificate, ProxyListener, ProxyRoute, ProxyService};
use crate::config::section::{Kind as Form, Section};
use crate::config::{self, ConfigError, Loaded, check};

/// Why a text is nothing that members' proxies could follow.
#[derive(Debug, Error)]
pub enum DesiredError {
    /// It says what no configuration may.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is too much of it.
    #[error(transparent)]
    Unsound(#[from] Unsound),
}

/// What a file says to members' proxies.
#[derive(Debug)]
pub struct Desired {
    /// Listeners, services and routes.
    pub settings: MeshSettings,
    /// Settings of the file that are each node's own, by their names: they are left alone.
    pub left_alone: Vec<String>,
}

/// Reads the file at `path`, a configuration with this text; only what is shared is judged, and nothing that depends on the
/// node: its files, its ports, and whether it finds services that are registered.
///
/// # Errors
/// [`DesiredError`], which names the place.
pub fn read(path: &Path, text: &str) -> Result<Desired, DesiredError> {
    let mut loaded = Loaded::said(path, text)?;
    let shared = ["proxy.listener", "proxy.service", "proxy.route"];
    // Items of lists are named beside their settings.
    let others = loaded.origins.keys().filter(|key| !shared.iter().any(|list| key.starts_with(list)));
    let left_alone: BTreeSet<String> =
        others.map(|key| key.split_once('[').map_or(key.as_str(), |(list, _)| list).to_owned()).collect();
    let settings = shown(&loaded.config.proxy);
    let config = &mut loaded.config;
    config.services.enabled = true;
    if config.proxy.certificate.is_empty() {
        config.proxy.certificate.push(ProxyCertificate::default());
    }
    super::check(&loaded)?;
    settings.check()?;
    Ok(Desired { settings, left_alone: left_alone.into_iter().collect() })
}

/// What is shared of these settings, as a revision would have it.
#[must_use]
pub fn shown(proxy: &config::Proxy) -> MeshSettings {
    let part = |name: &str, uses: BTreeSet<String>, text| Part { name: name.to_owned(), uses, text };
    let listener = |one: &ProxyListener| {
        let named = one.service.iter().map(|name| name.as_str().to_owned());
        let uses = named.chain(one.passthrough.0.iter().map(|passed| passed.service.clone())).collect();
        part(one.name.as_str(), uses, lines(&mut one.clone()))
    };
    let service = |one: &ProxyService| part(one.name.as_str(), BTreeSet::new(), lines(&mut one.clone()));
    let route = |one: &ProxyRoute| {
        let mirror = one.mirror.as_ref().map(|One(mirror)| mirror.service.clone());
        let uses = one.service.0.iter().map(|share| share.service.clone()).chain(mirror).collect();
        part(&route_name(one), uses, lines(&mut one.clone()))
    };
    MeshSettings {
        listeners: proxy.listener.iter().map(listener).collect(),
        services: proxy.service.iter().map(service).collect(),
        routes: proxy.route.iter().map(route).collect(),
    }
}

/// The settings of a table that must be given or differ from their defaults, a line for each.
fn lines<T: Section + Default>(table: &mut T) -> String {
    let values = |table: &mut T| -> Vec<(&'static str, Option<String>)> {
        let fields = table.fields().into_iter();
        fields
            .filter_map(|field| match field.kind {
                Form::Value(value) => Some((field.name, value.show())),
                Form::Section(_) | Form::List(_) => None,
            })
            .collect()
    };
    let required = table.required();
    let (own, usual) = (values(table), values(&mut T::default()));
    let mut out = String::new();
    for ((name, shown), (_, usual)) in own.into_iter().zip(usual) {
        if let Some(text) = shown.filter(|text| required.contains(&name) || Some(text) != usual.as_ref()) {
            out.push_str(&format!("{name} = {text}\n"));
        }
    }
    out
}

/// The settings as a file would have them.
#[must_use]
pub fn text(settings: &MeshSettings) -> String {
    let mut out = String::new();
    for (kind, parts) in settings.lists() {
        for part in parts {
            let gap = if out.is_empty() { "" } else { "\n" };
            out.push_str(&format!("{gap}[[proxy.{kind}]]\n{}", part.text));
        }
    }
    out
}

/// What the node that `loaded` is the configuration of does in a revision. Places in it are lines of [`text`].
///
/// # Errors
/// [`ConfigError`]: this node cannot follow the revision.
pub(crate) fn overlaid(loaded: &Loaded, revision: &Revision) -> Result<Loaded, ConfigError> {
    match &revision.settings {
        Some(settings) => laid_over(loaded, settings, &format!("revision {}", revision.number)),
        None => Ok(loaded.clone()),
    }
}

/// The same of settings that are `called` so.
///
/// # Errors
/// As [`overlaid`].
pub(crate) fn laid_over(
    loaded: &Loaded,
    settings: &MeshSettings,
    called: &str,
) -> Result<Loaded, ConfigError> {
    let said = Loaded::said(&PathBuf::from(called), &text(settings))?;
    let mut loaded = loaded.clone();
    let mut replaced = vec!["proxy.service[", "proxy.route["];
    loaded.config.proxy.service = said.config.proxy.service;
    loaded.config.proxy.route = said.config.proxy.route;
    if !settings.listeners.is_empty() {
        loaded.config.proxy.listener = said.config.proxy.listener;
        replaced.push("proxy.listener[");
    }
    let is_replaced = |key: &String| replaced.iter().any(|list| key.starts_with(list));
    loaded.origins.retain(|key, _| !is_replaced(key));
    loaded.origins.extend(said.origins.into_iter().filter(|(key, _)| is_replaced(key)));
    check::ports(&loaded)?;
    Ok(loaded)
}

/// What is different of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It is new.
    Added,
    /// It is no more.
    Removed,
    /// It says something else.
    Changed,
    /// The parts of this kind are the same, and their order is another.
    Moved,
}

impl What {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            What::Added => "added",
            What::Removed => "removed",
            What::Changed => "changed",
            What::Moved => "moved",
        }
    }
}

/// A difference between two settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of which kind.
    pub kind: Kind,
    /// Which part; empty if it is all of the kind.
    pub name: String,
    /// What is different.
    pub what: What,
    /// Lines that are no more, and that are new, each behind its `-` or `+`.
    pub lines: Vec<String>,
}

/// What is different in `after`, in the order of the lists; what is no more comes last. O(bytes · log parts).
#[must_use]
pub fn changes(before: &MeshSettings, after: &MeshSettings) -> Vec<Change> {
    let mut all = Vec::new();
    for ((kind, had), (_, has)) in before.lists().into_iter().zip(after.lists()) {
        let count = all.len();
        let change = |name: &str, what, lines| Change { kind, name: name.to_owned(), what, lines };
        let (old, new) = (by_name(had), by_name(has));
        for part in has {
            match old.get(&*part.name) {
                None => all.push(change(&part.name, What::Added, marked('+', &part.text, ""))),
                Some(was) if was.text == part.text => {}
                Some(was) => {
                    let mut lines = marked('-', &was.text, &part.text);
                    lines.extend(marked('+', &part.text, &was.text));
                    all.push(change(&part.name, What::Changed, lines));
                }
            }
        }
        for part in had.iter().filter(|part| !new.contains_key(&*part.name)) {
            all.push(change(&part.name, What::Removed, marked('-', &part.text, "")));
        }
        if all.len() == count && had != has {
            all.push(change("", What::Moved, Vec::new()));
        }
    }
    all
}

fn by_name(parts: &[Part]) -> BTreeMap<&str, &Part> {
    parts.iter().map(|part| (&*part.name, part)).collect()
}

/// Lines of `text` that are not in `other`.
fn marked(mark: char, text: &str, other: &str) -> Vec<String> {
    let others: BTreeSet<&str> = other.lines().collect();
    text.lines().filter(|line| !others.contains(line)).map(|line| format!("{mark} {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    const TEXT: &str = "[redis]\nport = 1\n[proxy]\nworkers = 2\n\
        [[proxy.listener]]\nname = \"web\"\nport = 8081\n\
        [[proxy.listener]]\nname = \"raw\"\nport = 8082\nprotocol = \"tcp\"\nservice = \"cart\"\n\
        [[proxy.service]]\nname = \"shop\"\nendpoints = [\"127.0.0.1:1\", \"127.0.0.1:2 3\"]\nrequests_max = 7\n\
        [[proxy.service]]\nname = \"cart\"\nprotocol = \"http1\"\n\
        [[proxy.route]]\nservice = [\"shop 3\", \"cart\"]\nmirror = \"cart 5\"\npath = \"/a\"\nretry_on = []\n\
        headers = \"x-beta: yes\"\n\
        [[proxy.route]]\nname = \"all\"\nservice = \"shop\"\n";

    fn of(text: &str) -> Desired {
        read(Path::new("mesh.toml"), text).unwrap()
    }

    fn uses(part: &Part) -> Vec<&str> {
        part.uses.iter().map(String::as_str).collect()
    }

    #[test]
    fn a_file_is_read_as_what_is_shared_of_it_and_what_is_left_alone() {
        let Desired { settings, left_alone } = of(TEXT);
        assert_eq!(left_alone, ["proxy.workers", "redis.port"]);
        let [web, raw] = &settings.listeners[..] else { panic!("{settings:?}") };
        assert_eq!((web.name.as_str(), web.text.as_str()), ("web", "name = \"web\"\nport = 8081\n"));
        assert_eq!(uses(raw), ["cart"]);
        let [shop, cart] = &settings.services[..] else { panic!("{settings:?}") };
        assert!(shop.text.contains("requests_max = 7\n") && !shop.text.contains("policy"), "{}", shop.text);
        // What is said and is the default needs no line.
        assert_eq!(cart.text, "name = \"cart\"\n");
        let [first, all] = &settings.routes[..] else { panic!("{settings:?}") };
        assert_eq!(uses(first), ["cart", "shop"]);
        assert!(first.text.contains("retry_on = []\n"), "{}", first.text);
        assert_eq!((all.name.as_str(), uses(all)), ("all", vec!["shop"]));
        // The text of what was read is read as the same.
        let again = of(&text(&settings));
        assert_eq!((again.settings, again.left_alone.len()), (settings, 0));
    }

    #[test]
    fn what_no_configuration_may_say_is_refused_with_its_place() {
        #[rustfmt::skip] // columns
        let table = [
            ("[[proxy.listener]]\nnam = \"web\"\n",                                  "`proxy.listener[0].name` is missing"),
            ("[[proxy.listener]]\nname = \"web\"\nport = 65536\n",                  "mesh.toml:3"),
            ("[[proxy.route]]\nservice = \"shop\"\n",                                "mesh.toml:2: `proxy.route[0].service` names"),
            ("[[proxy.service]]\nname = \"a\"\n[[proxy.service]]\nname = \"a\"\n",   "mesh.toml:4"),
            ("[[proxy.service]]\nname = \"a\"\nsticky_ttl_s = 3\n",                 "mesh.toml:3"),
            ("[proxy]\nworkers = 0\n",                                               "mesh.toml:2"),
            ("[[proxy",                                                               "not TOML"),
        ];
        for (text, expected) in table {
            let error = read(Path::new("mesh.toml"), text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        // What depends on the node is not judged here.
        for text in [
            "[[proxy.listener]]\nname = \"web\"\ntls = true\n",
            "[[proxy.service]]\nname = \"found\"\n",
            "[[proxy.service]]\nname = \"a\"\ntls = true\ntls_ca = \"/nowhere\"\n",
            "",
        ] {
            assert!(read(Path::new("mesh.toml"), text).is_ok(), "{text}");
        }
    }

    fn loaded(text: &str) -> Loaded {
        Loaded::layered(Some((Path::new("node.toml"), text)), &Sources::default()).unwrap()
    }

    #[test]
    fn a_revision_takes_the_place_of_the_file_but_for_listeners_that_it_does_not_have() {
        let file = "port_offset = 50000\n[proxy]\nclients_max = 9\n[[proxy.listener]]\nname = \"own\"\nport = 5000\n\
            [[proxy.service]]\nname = \"old\"\nendpoints = \"127.0.0.1:1\"\n[[proxy.route]]\nservice = \"old\"\n";
        let node = loaded(file);
        let names = |loaded: &Loaded| {
            let proxy = &loaded.config.proxy;
            let listeners = proxy.listener.iter().map(|one| one.name.as_str().to_owned());
            let services = proxy.service.iter().map(|one| one.name.as_str().to_owned());
            let routes = proxy.route.iter().map(super::route_name);
            listeners.chain(services).chain(routes).collect::<Vec<String>>()
        };
        let service = "[[proxy.service]]\nname = \"new\"\nendpoints = \"127.0.0.1:2\"\n[[proxy.route]]\npath = \"/x\"\nservice = \"new\"\n";
        let listener = "[[proxy.listener]]\nname = \"web\"\nport = 5001\n";
        #[rustfmt::skip] // columns
        let table = [
            ("".to_owned(),                   vec!["own"]),
            (service.to_owned(),              vec!["own", "new", "*/x"]),
            (listener.to_owned(),             vec!["web"]),
            (format!("{listener}{service}"),  vec!["web", "new", "*/x"]),
        ];
        for (text, expected) in table {
            let settings = of(&text).settings;
            let over = laid_over(&node, &settings, "revision 3").unwrap();
            assert_eq!(names(&over), expected, "{text}");
            assert_eq!(over.config.proxy.clients_max.get(), 9, "{text}");
            assert!(super::super::check(&over).is_ok(), "{text}");
        }
        // A listener of the file may need what the revision does not have.
        let raw = format!(
            "{file}[[proxy.listener]]\nname = \"raw\"\nprotocol = \"tcp\"\nport = 5002\nservice = \"old\"\n"
        );
        let over = laid_over(&loaded(&raw), &of(service).settings, "revision 3").unwrap();
        let error = super::super::check(&over).unwrap_err().to_string();
        assert!(error.contains("node.toml") && error.contains("\"old\""), "{error}");
        // Ports that this node's offset leads out of the range are named by their place in the revision.
        let high = of("[[proxy.listener]]\nname = \"web\"\nport = 20000\n").settings;
        let error = laid_over(&node, &high, "revision 3").unwrap_err().to_string();
        assert!(error.contains("port_offset"), "{error}");
        // Who does not know a word says which, and where.
        let mut newer = of(service).settings;
        newer.services[0].text.push_str("colour = \"red\"\n");
        let error = laid_over(&node, &newer, "revision 3").unwrap_err().to_string();
        assert!(error.starts_with("revision 3:4: there is no setting `proxy.service[0].colour`"), "{error}");
    }

    #[test]
    fn differences_are_told_by_part_and_line() {
        let before = of(TEXT).settings;
        let told = |after: &str| {
            let all = changes(&before, &of(after).settings);
            all.iter()
                .map(|it| format!("{} {} {} {}", it.kind, it.name, it.what.word(), it.lines.join("|")))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(TEXT), Vec::<String>::new());
        assert_eq!(
            told(&TEXT.replace("requests_max = 7", "requests_max = 8")),
            ["service shop changed - requests_max = 7|+ requests_max = 8"]
        );
        let less = &TEXT[..TEXT.find("[[proxy.route]]\nname").unwrap()];
        assert_eq!(told(less), ["route all removed - name = \"all\"|- service = [\"shop\"]"]);
        let more = format!("{TEXT}[[proxy.service]]\nname = \"new\"\n");
        assert_eq!(told(&more), ["service new added + name = \"new\""]);
        let (a, b) = ("[[proxy.service]]\nname = \"a\"\n", "[[proxy.service]]\nname = \"b\"\n");
        let [one, other] = [[a, b], [b, a]].map(|list| of(&list.concat()).settings);
        let moved = changes(&one, &other);
        assert_eq!((moved.len(), moved[0].kind, moved[0].what), (1, Kind::Service, What::Moved));
    }
}
