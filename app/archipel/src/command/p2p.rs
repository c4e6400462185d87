//! Verbs on the overlay.

use clap::Subcommand;

/// What is done with the overlay.
#[derive(Subcommand, Clone, Debug)]
pub enum P2pCommand {
    /// Print the node's peer id, its addresses, and whether others can reach it.
    #[command(after_help = "\
Examples:
  archipel node start --set p2p.enabled=true
  archipel p2p id")]
    Id,
    /// Print whom the node is connected to and what it knows.
    #[command(after_help = "\
Examples:
  archipel p2p peers
  archipel p2p peers --json | jq .contacts")]
    Peers,
    /// Measure a round trip to a connected peer.
    #[command(after_help = "\
Examples:
  archipel p2p ping 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")]
    Ping {
        /// The peer's id.
        peer: String,
    },
    /// Connect to a peer; one that serves the hash table becomes a contact.
    #[command(after_help = "\
Examples:
  archipel p2p connect /ip4/127.0.0.1/tcp/7412
  archipel p2p connect /ip6/::1/tcp/4001/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")]
    Connect {
        /// Where it is, and perhaps who.
        address: String,
    },
    /// Close the connections to a peer.
    #[command(after_help = "\
Examples:
  archipel p2p disconnect 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")]
    Disconnect {
        /// The peer's id.
        peer: String,
    },
    /// Send a message to one peer, over a connection that both keys prove.
    #[command(after_help = "\
Examples:
  archipel p2p send 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA 'hello there'
  archipel p2p send 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA - < note.txt

The receiver sees it with `archipel p2p listen`. A peer that is not connected is looked up and
dialled. Exit code 1 if nobody listens there, or nobody answers: then it may have arrived or not.")]
    Send {
        /// The peer's id.
        peer: String,
        /// The message; `-` reads it from stdin.
        #[arg(allow_hyphen_values = true)]
        message: String,
    },
    /// Tell a message to all peers that messages reach.
    #[command(after_help = "\
Examples:
  archipel p2p broadcast 'the ferry is late'
  archipel p2p broadcast --via gossip 'the ferry is late'     with p2p.gossip=true here and there

Receivers see it with `archipel p2p listen`. What is told is to how many neighbours it went; how
many nodes hear it nobody knows. Exit code 1 if there is none.")]
    Broadcast {
        /// The message; `-` reads it from stdin.
        #[arg(allow_hyphen_values = true)]
        message: String,
        /// By which way.
        #[arg(long, value_enum, default_value_t = BroadcastVia::Flood)]
        via: BroadcastVia,
    },
    /// Print messages and broadcasts as they arrive, until interrupted.
    #[command(after_help = "\
Examples:
  archipel p2p listen
  archipel p2p listen --count 1
  archipel p2p listen --json | jq -r .text")]
    Listen {
        /// End after so many.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
    },
    /// Draw nodes of the network by random walks, each as likely as any other; or look for content by them.
    #[command(after_help = "\
Examples:
  archipel p2p walk
  archipel p2p walk --walkers 32 --steps 100
  archipel p2p walk --content 'a file by any name'

Exit code 1 if no walker brings anything.")]
    Walk {
        /// So many walkers, at most 64: each draws one node.
        #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
        walkers: u8,
        /// So many steps each, at most 4096: enough to forget where they began.
        #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
        steps: u16,
        /// Look for a provider of this: a CID, or any text.
        #[arg(long, value_name = "NAME")]
        content: Option<String>,
    },
    /// Find a peer, and the nodes nearest to its place.
    #[command(after_help = "\
Examples:
  archipel p2p find 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA
  archipel p2p find --overlay chord 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA

Exit code 1 if the peer itself is not found.")]
    Find {
        /// The peer's id.
        peer: String,
        /// Whose table is asked.
        #[arg(long, value_enum, default_value_t = OverlayKind::Kad)]
        overlay: OverlayKind,
    },
    /// Print the value of a name.
    #[command(after_help = "\
Examples:
  archipel p2p get menu
  archipel p2p get --overlay chord menu
  archipel p2p get /archipel/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/menu

Exit code 1 if no valid value is found.")]
    Get {
        /// A label of this node, /archipel/PEER/LABEL, or /pk/HASH.
        name: String,
        /// Whose table is asked.
        #[arg(long, value_enum, default_value_t = OverlayKind::Kad)]
        overlay: OverlayKind,
    },
    /// Publish a value under a label of this node, signed with its key.
    #[command(after_help = "\
Examples:
  archipel p2p put menu 'soup of the day'
  archipel p2p put menu - < menu.json
  archipel p2p put --overlay chord menu 'soup of the day'

The node sends it again twice a day while it runs, on the ring each hour. The name that others get
it by is printed.")]
    Put {
        /// The label, or /pk/HASH for a public key.
        name: String,
        /// The value; `-` reads it from stdin.
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// Seconds after which it is not valid any more.
        #[arg(long, value_name = "N", default_value_t = 604_800, value_parser = clap::value_parser!(u64).range(1..))]
        lifetime_seconds: u64,
        /// Whose table is asked.
        #[arg(long, value_enum, default_value_t = OverlayKind::Kad)]
        overlay: OverlayKind,
    },
    /// Let this node be found as a provider of content.
    #[command(after_help = "\
Examples:
  archipel p2p provide bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku
  archipel p2p provide 'a file by any name'")]
    Provide {
        /// A CID, or any text, whose SHA-256 is then the content's name.
        name: String,
    },
    /// Print who provides content.
    #[command(after_help = "\
Examples:
  archipel p2p providers bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku

Exit code 1 if nobody is found.")]
    Providers {
        /// A CID, or any text, whose SHA-256 is then the content's name.
        name: String,
    },
    /// Show each question of a lookup with its time, and how many leading bits the peer asked shares with the key.
    #[command(after_help = "\
Examples:
  archipel p2p trace menu
  archipel p2p trace --what node 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA
  archipel p2p trace --what providers 'a file by any name' --json
  archipel p2p trace --overlay chord menu")]
    Trace {
        /// What is looked for.
        name: String,
        /// As what it is looked for.
        #[arg(long, value_enum, default_value_t = TraceWhat::Value)]
        what: TraceWhat,
        /// Whose table is asked.
        #[arg(long, value_enum, default_value_t = OverlayKind::Kad)]
        overlay: OverlayKind,
    },
}

/// What a traced lookup looks for.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum TraceWhat {
    /// The value of a name.
    Value,
    /// A peer.
    Node,
    /// The providers of content.
    Providers,
}

/// Whose hash table is asked.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayKind {
    /// Kademlia, which libp2p's peers share.
    Kad,
    /// Chord's ring of Archipel's nodes: for nodes that trust each other about who owns a key.
    Chord,
}

impl OverlayKind {
    /// As the node is asked.
    pub const fn name(self) -> &'static str {
        match self {
            OverlayKind::Kad => "kad",
            OverlayKind::Chord => "chord",
        }
    }
}

/// How a broadcast goes.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum BroadcastVia {
    /// Everyone tells all neighbours, once, at most 16 edges far.
    Flood,
    /// Gossipsub: each broadcast is signed by its origin, and passes few edges whole.
    Gossip,
}

impl BroadcastVia {
    /// As the node is asked.
    pub const fn name(self) -> &'static str {
        match self {
            BroadcastVia::Flood => "flood",
            BroadcastVia::Gossip => "gossip",
        }
    }
}
