//! Why a request takes a route or does not: the same rules, asked one by one.

use super::{Ask, FieldRule, HOST_BYTES_MAX, HostRule, PathRule, Routes, Rule, bare, lower};

/// What a route is to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// The request takes it.
    Taken,
    /// It is for other hosts.
    Host,
    /// It is for other paths.
    Path,
    /// It is for other methods.
    Method,
    /// The request lacks this field, or has another value there.
    Field(&'a FieldRule),
    /// It would take the request, but a more specific host is known, and keeps its requests.
    OtherHost,
    /// It would take the request, but one that is more specific does, or one like it that stands before it.
    Behind,
}

impl Routes {
    /// The rule of this number.
    #[must_use]
    pub fn rule(&self, number: u32) -> Option<&Rule> {
        self.rules.get(number as usize)
    }

    /// What the route of this number is to a request; `None` if there is no such route. For people: O(find).
    pub fn standing(
        &self,
        number: u32,
        ask: &Ask<'_>,
        has: &dyn Fn(&FieldRule) -> bool,
    ) -> Option<Standing<'_>> {
        let rule = self.rule(number)?;
        let mut room = [0; HOST_BYTES_MAX];
        let host = lower(bare(ask.host), &mut room);
        let path = ask.path.split_once('?').map_or(ask.path, |(path, _)| path);
        let fits = match (&rule.host, host) {
            (HostRule::Any, _) => true,
            (HostRule::Exact(name), Some(host)) => **name == *host,
            (HostRule::Under(suffix), Some(host)) => host.len() > suffix.len() && host.ends_with(&**suffix),
            (HostRule::Exact(_) | HostRule::Under(_), None) => false,
        };
        if !fits {
            return Some(Standing::Host);
        }
        let fits = match &rule.path {
            PathRule::Exact(exact) => **exact == *path,
            PathRule::Prefix(prefix) => {
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        };
        if !fits {
            return Some(Standing::Path);
        }
        if !rule.methods.is_empty() && !rule.methods.iter().any(|one| **one == *ask.method) {
            return Some(Standing::Method);
        }
        if let Some(lacking) = rule.fields.iter().find(|field| !has(field)) {
            return Some(Standing::Field(lacking));
        }
        if self.find(ask, has) == Some(number) {
            return Some(Standing::Taken);
        }
        let known = host.and_then(|host| self.rule_of(host));
        let keeps = known.is_some_and(|known| known != rule.host);
        Some(if keeps { Standing::OtherHost } else { Standing::Behind })
    }

    /// The most specific rule for this host, in lower case, that is not for any.
    fn rule_of(&self, host: &str) -> Option<HostRule> {
        if let Some((name, _)) = self.exact.get_key_value(host) {
            return Some(HostRule::Exact(name.clone()));
        }
        let fits = |suffix: &str| host.len() > suffix.len() && host.ends_with(suffix);
        let under = self.under.iter().find(|(suffix, _)| fits(suffix));
        under.map(|(suffix, _)| HostRule::Under(suffix.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::boxed::Box;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn rule(host: &str, path: PathRule, methods: &[&str], fields: &[&str]) -> Rule {
        let field = |name: &&str| FieldRule { name: (*name).into(), value: None };
        Rule {
            host: HostRule::read(host).unwrap(),
            path,
            methods: methods.iter().map(|&one| Box::from(one)).collect(),
            fields: fields.iter().map(field).collect(),
        }
    }

    fn prefix(path: &str) -> PathRule {
        PathRule::prefix(path).unwrap()
    }

    #[test]
    fn each_route_says_what_it_is_to_a_request() {
        let rules = [
            rule("*", prefix("/"), &[], &[]),
            rule("a.example", prefix("/"), &[], &[]),
            rule("a.example", prefix("/api"), &["POST"], &[]),
            rule("a.example", prefix("/api"), &[], &["x-beta"]),
            rule("a.example", prefix("/api"), &[], &[]),
            rule("a.example", prefix("/api"), &[], &[]),
            rule("*.example", PathRule::exact("/api").unwrap(), &[], &[]),
            rule("b.example", prefix("/"), &[], &[]),
        ];
        let routes = Routes::new(&rules).unwrap();
        let ask = Ask { host: "A.example:80", path: "/api?x", method: "GET" };
        let found = |number| routes.standing(number, &ask, &|_| false);
        let (behind, beta) = (Some(Standing::Behind), &rules[3].fields[0]);
        assert_eq!(found(0), Some(Standing::OtherHost));
        assert_eq!(found(1), behind, "a shorter prefix");
        assert_eq!(found(2), Some(Standing::Method));
        assert_eq!(found(3), Some(Standing::Field(beta)));
        assert_eq!(found(4), Some(Standing::Taken));
        assert_eq!(found(5), behind, "the same, but later");
        assert_eq!(found(6), Some(Standing::OtherHost));
        assert_eq!((found(7), found(8)), (Some(Standing::Host), None));
        let below = Ask { path: "/apix", ..ask };
        assert_eq!(routes.standing(4, &below, &|_| false), Some(Standing::Path));
    }

    proptest! {
        #[test]
        fn what_is_said_is_what_is_done(
            picks in prop::collection::vec((0usize..4, 0usize..4, 0usize..3, any::<bool>()), 1..12),
            host in 0usize..4,
            path in 0usize..5,
            beta: bool,
        ) {
            let rules: Vec<Rule> = picks.iter().map(|&(host, path, method, beta)| {
                let host = ["*", "a.b", "*.b", "c"][host];
                let path = [prefix("/"), prefix("/x"), prefix("/x/y"), PathRule::exact("/x").unwrap()][path].clone();
                let methods: &[&str] = [&[][..], &["GET"], &["PUT"]][method];
                rule(host, path, methods, if beta { &["x-beta"] } else { &[] })
            }).collect();
            let routes = Routes::new(&rules).unwrap();
            let host = ["a.b", "z.b", "c", "d"][host];
            let path = ["/", "/x", "/x/y/z", "/xy", "/x?y"][path];
            let ask = Ask { host, path, method: "GET" };
            let has = |_: &FieldRule| beta;
            let said: Vec<u32> = (0..rules.len() as u32)
                .filter(|&number| routes.standing(number, &ask, &has) == Some(Standing::Taken))
                .collect();
            prop_assert_eq!(said, routes.find(&ask, &has).map_or(vec![], |number| vec![number]));
        }
    }
}
