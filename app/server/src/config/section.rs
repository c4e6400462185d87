//! What a struct must tell so that loading, the reference and error messages can be derived from it.

use toml::de::DeValue;

/// One thing that can be set, a group of them, or a list of such groups.
pub enum Kind<'a> {
    /// It has a value.
    Value(&'a mut dyn Value),
    /// `[name]`.
    Section(&'a mut dyn Section),
    /// `[[name]]`.
    List(&'a mut dyn List),
}

/// A field's type.
pub trait Setting {
    /// Which kind it is.
    fn kind(&mut self) -> Kind<'_>;
}

/// A single value. A refused one leaves the old in place.
pub trait Value {
    /// What is allowed, as in "allowed is …".
    fn allowed(&self) -> String;
    /// Takes it from a file. False if it is not allowed.
    fn read(&mut self, value: &DeValue<'_>) -> bool;
    /// Takes it from a variable or a flag. False if it is not allowed.
    fn parse(&mut self, text: &str) -> bool;
    /// As it stands in a file; `None` if it is not set.
    fn show(&self) -> Option<String>;
    /// True if it must not be printed.
    fn is_secret(&self) -> bool {
        false
    }
}

/// One field of a section.
pub struct Field<'a> {
    /// Its name.
    pub name: &'static str,
    /// Its documentation, line by line.
    pub about: &'static [&'static str],
    /// Itself.
    pub kind: Kind<'a>,
}

/// A group of settings.
pub trait Section {
    /// Its fields in the order of the reference.
    fn fields(&mut self) -> Vec<Field<'_>>;
    /// The fields that a file must give, because there is no default.
    fn required(&self) -> &'static [&'static str];
}

/// A list of groups.
pub trait List {
    /// Removes all.
    fn clear(&mut self);
    /// Adds one with its defaults.
    fn push(&mut self) -> &mut dyn Section;
}

impl<T: Section + Default> List for Vec<T> {
    fn clear(&mut self) {
        Vec::clear(self);
    }

    fn push(&mut self) -> &mut dyn Section {
        Vec::push(self, T::default());
        self.last_mut().expect("it was just pushed")
    }
}

impl<T: Section + Default> Setting for Vec<T> {
    fn kind(&mut self) -> Kind<'_> {
        Kind::List(self)
    }
}

/// Declares a struct whose documentation, defaults and fields are known at run time.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        pub struct $name:ident $(requires [$($required:ident),*])? {
            $($(#[doc = $doc:literal])* $field:ident: $kind:ty = $default:expr,)*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])* pub $field: $kind,)*
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: $default,)* }
            }
        }

        impl $crate::config::section::Section for $name {
            fn fields(&mut self) -> Vec<$crate::config::section::Field<'_>> {
                vec![$($crate::config::section::Field {
                    name: stringify!($field),
                    about: &[$($doc),*],
                    kind: $crate::config::section::Setting::kind(&mut self.$field),
                }),*]
            }

            fn required(&self) -> &'static [&'static str] {
                &[$($(stringify!($required)),*)?]
            }
        }

        impl $crate::config::section::Setting for $name {
            fn kind(&mut self) -> $crate::config::section::Kind<'_> {
                $crate::config::section::Kind::Section(self)
            }
        }
    };
}

pub(crate) use section;
