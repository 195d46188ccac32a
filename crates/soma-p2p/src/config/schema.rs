//! How the schema of the configuration describes texts whose types have no schema of their own.
//!
//! A pattern gives the form. The types themselves check more when a node reads its configuration.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// Declares a kind of text by the rest of its schema.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident = { $($schema:tt)* })*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", $($schema)* })
            }
        }
    )*};
}

texts! {
    /// As the crate `humantime` reads it.
    Duration = { "pattern": "^\\s*([0-9]+\\s*[A-Za-zµ]+\\s*)+$" }
    /// A dialable address.
    Address = { "pattern": "^/(ip4|ip6|dns)/[^/]+/tcp/[0-9]{1,5}$" }
    /// An address of this machine.
    ListenAddress = { "pattern": "^/(ip4|ip6)/[^/]+/tcp/[0-9]{1,5}$" }
    /// 32 bytes.
    Hex = { "pattern": "^[0-9A-Fa-f]{64}$" }
    /// A peer with its address.
    SeedPeer = { "pattern": "^[0-9A-Fa-f]{64}@/(ip4|ip6|dns)/[^/]+/tcp/[0-9]{1,5}$" }
    /// The role of a node.
    NodeRole = { "enum": ["full-node", "validator"] }
    /// Peers that may learn an address.
    Access = { "enum": ["public", "trusted", "private"] }
    /// How much of a block is checked.
    Verification = { "enum": ["full", "certified"] }
}
