//! Values in, values out: a cluster in memory takes what the planner wants to be written.

mod gateway;
mod objects;
mod publishing;
mod scale;
mod world;

use world::{GATEWAY, NOW_MS, World, mail_domain, mk_domain, mk_domain_in};

use super::*;
