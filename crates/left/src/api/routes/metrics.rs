//! Numbers for Prometheus.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::call::{Api, Refused, Shared, ask, refuse};
use crate::counters;
use crate::daemon::handle::{ApplyTimes, PeerStatus, ShareStatus, State as ShareState, Status};
use crate::daemon::times::BOUNDS_MS;
use crate::home::{UserError, clean};

/// The type Prometheus reads.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// Numbers for Prometheus, in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "state", responses(
    (status = 200, description = "OpenMetrics text", body = String,
     content_type = "application/openmetrics-text"), Refused))]
async fn metrics(State(api): Shared) -> Response {
    let status = match ask(&api, |d| Ok(d.status())).await {
        Ok(status) => status,
        Err(response) => return response,
    };
    match text(&status) {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(e) => {
            let e = UserError::new("left has a bug", e, "please report it with the log");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, e)
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfShare {
    share: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    share: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPeer {
    share: String,
    device: String,
    name: String,
}

type Number = Gauge<u64, AtomicU64>;
type ShareNumber = (&'static str, &'static str, fn(&ShareStatus) -> u64);
type PeerNumber = (&'static str, &'static str, fn(&PeerStatus) -> u64);

/// What there is to say of each share.
const SHARE_NUMBERS: [ShareNumber; 9] = [
    ("files", "Files and links here", |s| s.files),
    ("folders", "Folders here", |s| s.dirs),
    ("size_bytes", "Bytes of all files here", |s| s.bytes),
    ("queue_files", "Paths still needed here", |s| s.need_files),
    ("queue_bytes", "Bytes still needed here", |s| s.need_bytes),
    ("conflicts", "Conflict copies", |s| s.conflicts.len() as u64),
    ("errors", "Paths that cannot be synchronised", |s| {
        s.problems.len() as u64
    }),
    ("transfers", "Long transfers under way", |s| {
        s.transfers.len() as u64
    }),
    ("alarm", "1 when the user has to decide", |s| {
        u64::from(s.alarm.is_some())
    }),
];

/// What there is to say of each peer of a share.
const PEER_NUMBERS: [PeerNumber; 6] = [
    ("connected", "1 when connected", |p| u64::from(p.connected)),
    ("in_sync", "1 when identical", |p| u64::from(p.in_sync)),
    ("lag_files", "Paths it still needs", |p| p.need_files),
    ("lag_bytes", "Bytes it still needs", |p| p.need_bytes),
    ("received_bytes", "Bytes from it since left started", |p| {
        p.bytes_in
    }),
    ("sent_bytes", "Bytes to it since left started", |p| {
        p.bytes_out
    }),
];

/// How long changes of the folders took.
#[derive(Debug)]
struct Applied(Vec<(String, ApplyTimes)>);

impl Collector for Applied {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "From when a change of the folder is asked for until it is durable";
        let kind = MetricType::Histogram;
        let unit = Unit::Seconds;
        let mut metric = encoder.encode_descriptor("share_apply", help, Some(&unit), kind)?;
        for (share, times) in &self.0 {
            let share = share.clone();
            let sum = times.sum_ms as f64 / 1000.0;
            let bounds = BOUNDS_MS.iter().map(|ms| *ms as f64 / 1000.0);
            let bounds = bounds.chain([f64::INFINITY]);
            let counts = times.classes.iter().copied().chain(std::iter::repeat(0));
            let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
            metric
                .encode_family(&OfShare { share })?
                .encode_histogram::<OfShare>(sum, times.count, &buckets, None)?;
        }
        Ok(())
    }
}

fn text(status: &Status) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("left");
    for (name, help, value) in SHARE_NUMBERS {
        let family = Family::<OfShare, Number>::default();
        for share in &status.shares {
            let label = OfShare {
                share: clean(&share.path),
            };
            family.get_or_create(&label).set(value(share));
        }
        registry.register(format!("share_{name}"), help, family);
    }
    let states = Family::<OfState, Number>::default();
    for share in &status.shares {
        for state in ShareState::ALL {
            let label = OfState {
                share: clean(&share.path),
                state: state.name(),
            };
            let is = u64::from(share.state == state);
            states.get_or_create(&label).set(is);
        }
    }
    registry.register("share_state", "1 for the state it is in", states);
    for (name, help, value) in PEER_NUMBERS {
        let family = Family::<OfPeer, Number>::default();
        for share in &status.shares {
            for peer in &share.peers {
                let label = OfPeer {
                    share: clean(&share.path),
                    device: peer.device.to_string(),
                    name: peer.name.clone(),
                };
                family.get_or_create(&label).set(value(peer));
            }
        }
        registry.register(format!("peer_{name}"), help, family);
    }
    for counter in counters::ALL {
        let name = format!("work_{}", counter.name);
        registry.register(name, counter.help, ConstCounter::new(counter.get()));
    }
    registry.register_collector(Box::new(Applied(
        status
            .shares
            .iter()
            .map(|s| (clean(&s.path), s.applied.clone()))
            .collect(),
    )));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}
