//! Three primaries that share the slots.

use std::process::Command;

use crate::{Certificate, Output, RedisServer, RedisServerBuilder, eventually};

const NODES: usize = 3;

pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

#[derive(Clone, Debug)]
pub struct RedisClusterBuilder {
    node: RedisServerBuilder,
    full_coverage: bool,
}

impl RedisCluster {
    #[track_caller]
    pub fn start() -> Self {
        Self::builder().start()
    }

    pub fn builder() -> RedisClusterBuilder {
        RedisClusterBuilder { node: RedisServer::builder(), full_coverage: true }
    }

    /// `redis+cluster://` or `rediss+cluster://` with all nodes; never with a password.
    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(|node| node.address.to_string()).collect();
        let scheme = self.nodes.first().map_or("redis", |node| node.access.scheme());
        format!("{scheme}+cluster://{}", addresses.join(","))
    }

    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    pub fn nodes_mut(&mut self) -> &mut [RedisServer] {
        &mut self.nodes
    }

    /// The place in [`RedisCluster::nodes`] of the one that serves this key.
    #[track_caller]
    pub fn node_of(&self, key: &str) -> usize {
        let first = self.nodes.first().unwrap();
        let slot: u32 = first.cli(&["CLUSTER", "KEYSLOT", key]).trim().parse().unwrap();
        let owned = |node: &RedisServer| {
            let text = node.cli(&["CLUSTER", "NODES"]);
            let own = text.lines().find(|line| line.contains("myself")).unwrap().to_owned();
            own.split(' ').skip(8).any(|range| {
                let (low, high) = range.split_once('-').unwrap_or((range, range));
                let ends = low.parse().ok().zip(high.parse().ok());
                ends.is_some_and(|(low, high): (u32, u32)| (low..=high).contains(&slot))
            })
        };
        self.nodes.iter().position(owned).unwrap_or_else(|| panic!("nobody has slot {slot}"))
    }

    /// Waits until every node that runs says that the cluster is well.
    #[track_caller]
    pub fn wait_ok(&self) {
        for node in &self.nodes {
            eventually("the cluster is well", || {
                node.try_cli(&["CLUSTER", "INFO"]).text.contains("cluster_state:ok")
            });
        }
    }

    fn create(&self) -> Command {
        let first = self.nodes.first().unwrap();
        let mut command = first.access.redis_cli(first.address);
        command.args(["--cluster", "create"]);
        command.args(self.nodes.iter().map(|node| node.address.to_string()));
        command.args(["--cluster-replicas", "0", "--cluster-yes"]);
        command
    }
}

// === impl RedisClusterBuilder ===

impl RedisClusterBuilder {
    /// A line of each node's redis.conf.
    pub fn config(mut self, line: &str) -> Self {
        self.node = self.node.config(line);
        self
    }

    pub fn password(mut self, password: &str) -> Self {
        self.node = self.node.password(password);
        self
    }

    pub fn tls(mut self, certificate: &Certificate) -> Self {
        self.node = self.node.tls(certificate).config("tls-cluster yes");
        self
    }

    pub fn persistent(mut self) -> Self {
        self.node = self.node.persistent();
        self
    }

    /// With `false` (`cluster-require-full-coverage no`) the slots of other nodes go on when one is lost.
    pub fn full_coverage(mut self, required: bool) -> Self {
        self.full_coverage = required;
        self
    }

    #[track_caller]
    pub fn start(self) -> RedisCluster {
        let coverage = if self.full_coverage { "yes" } else { "no" };
        let node = self
            .node
            .config("cluster-enabled yes")
            // How long a node is silent before it counts as lost.
            .config("cluster-node-timeout 1000")
            .config(&format!("cluster-require-full-coverage {coverage}"));
        let nodes: Vec<RedisServer> = (0..NODES).map(|_| node.clone().launch()).collect();
        for node in &nodes {
            node.wait_ready();
        }
        let cluster = RedisCluster { nodes };
        let created = Output::of(&mut cluster.create());
        assert_eq!(created.code, 0, "{}", created.text);
        cluster.wait_ok();
        cluster
    }
}
