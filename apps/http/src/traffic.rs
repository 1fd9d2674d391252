//! Requests by route: how many there are, how they end, how long they take.

use std::collections::HashMap;
use std::time::Instant;

use domain::ports::TraceContext;
use poem::http::{Method, StatusCode};
use poem::{Endpoint, PathPattern, Request, Response};
use poem_openapi::OpenApi;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::durations::{Durations, durations, observe};

type Labels<const N: usize> = [(&'static str, String); N];

/// How a request may end: by the class of its status, or with the client gone before there was an answer.
const ENDS: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "gone"];
const GONE: usize = 4;

/// What no route of ours is for.
const OTHER: &str = "other";

/// The meters of requests, before it is known which routes there are.
pub(crate) struct RequestMeters {
    answered: Family<Labels<3>, Counter>,
    took: Family<Labels<2>, Durations>,
    in_flight: Gauge,
}

impl RequestMeters {
    pub(crate) fn new(names: &mut Registry) -> Self {
        let answered = Family::default();
        let took = Family::<Labels<2>, Durations>::new_with_constructor(durations);
        let in_flight = Gauge::default();
        names.register(
            "http_requests",
            "Requests by route, method and how they ended: the class of the status, or `gone` when the client did not wait",
            answered.clone(),
        );
        names.register_with_unit(
            "http_request_duration",
            "From a request's head until the head of its answer, by route and method; of a request that waits for its task, the wait with it",
            Unit::Seconds,
            took.clone(),
        );
        names.register(
            "http_requests_in_flight",
            "Requests that are being answered",
            in_flight.clone(),
        );
        Self {
            answered,
            took,
            in_flight,
        }
    }

    /// A series for each route of these, and for whatever is none of them, at zero.
    pub(crate) fn of<T: OpenApi>(&self, _routes: &T) -> Traffic {
        let mut lanes: HashMap<String, Vec<(Method, Lane)>> = HashMap::new();
        for path in T::meta().into_iter().flat_map(|api| api.paths) {
            for operation in path.operations {
                let lane = self.lane(&path.path, operation.method.as_str());
                let of_path = lanes.entry(path.path.clone()).or_default();
                of_path.push((operation.method, lane));
            }
        }
        Traffic {
            lanes,
            other: self.lane(OTHER, OTHER),
            in_flight: self.in_flight.clone(),
        }
    }

    fn lane(&self, route: &str, method: &str) -> Lane {
        let labels = [("route", route.to_owned()), ("method", method.to_owned())];
        Lane {
            answered: ENDS.map(|end| {
                let [route, method] = labels.clone();
                let status = ("status", end.to_owned());
                self.answered.get_or_create_owned(&[route, method, status])
            }),
            took: self.took.get_or_create_owned(&labels),
        }
    }
}

/// The series of each route, found without making anything.
pub(crate) struct Traffic {
    lanes: HashMap<String, Vec<(Method, Lane)>>,
    other: Lane,
    in_flight: Gauge,
}

struct Lane {
    /// In the order of [`ENDS`].
    answered: [Counter; ENDS.len()],
    took: Durations,
}

impl Traffic {
    /// `HEAD` is counted with the `GET` that answers it.
    fn lane(&self, route: Option<&PathPattern>, method: &Method) -> &Lane {
        let method = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        route
            .and_then(|pattern| self.lanes.get(&*pattern.0))
            .and_then(|lanes| lanes.iter().find(|(own, _)| own == method))
            .map_or(&self.other, |(_, lane)| lane)
    }
}

/// Counts the requests of what it stands before, whose answers name their route.
pub(crate) struct Metered<E> {
    inner: E,
    traffic: Traffic,
}

impl<E> Metered<E> {
    pub(crate) const fn new(inner: E, traffic: Traffic) -> Self {
        Self { inner, traffic }
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for Metered<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let method = request.method().clone();
        let under_way = UnderWay::begin(&self.traffic);
        let answer = self.inner.call(request).await;
        match &answer {
            Ok(response) => under_way.answered(
                self.traffic.lane(response.data(), &method),
                response.status(),
                response.data(),
            ),
            Err(error) => under_way.answered(&self.traffic.other, error.status(), None),
        }
        answer
    }
}

/// A request that is being answered; when it is dropped before, the client has gone.
struct UnderWay<'traffic> {
    traffic: &'traffic Traffic,
    began: Instant,
    is_answered: bool,
}

impl<'traffic> UnderWay<'traffic> {
    fn begin(traffic: &'traffic Traffic) -> Self {
        traffic.in_flight.inc();
        Self {
            traffic,
            began: Instant::now(),
            is_answered: false,
        }
    }

    fn answered(mut self, lane: &Lane, status: StatusCode, trace: Option<&TraceContext>) {
        self.is_answered = true;
        observe(&lane.took, self.began.elapsed().as_secs_f64(), trace);
        let class = usize::from(status.as_u16() / 100);
        // Nothing below 200 is the end of a request.
        lane.answered[class.clamp(2, 5) - 2].inc();
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.traffic.in_flight.dec();
        if !self.is_answered {
            self.traffic.other.answered[GONE].inc();
        }
    }
}
