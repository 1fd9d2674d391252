//! What stands before the routes: whatever goes wrong behind it becomes a problem, and every answer says what a browser may do
//! with it and, of a service that stops, that its connection closes.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use poem::endpoint::BoxEndpoint;
use poem::error::MethodNotAllowedError;
use poem::http::{HeaderValue, Method, StatusCode, Version, header};

use poem::{Endpoint, IntoEndpoint, PathPattern, Request, Response};
use poem_openapi::OpenApi;

use crate::accept::{takes_events, takes_gzip};
use crate::compression;
use crate::cross_origin::CrossOrigin;
use crate::document;
use crate::guard::shape;
use crate::health::Stopping;
use crate::problem::{Kind, Problem};
use crate::protection::Protection;
use crate::rate::Standing;
use crate::routes::{AWAY, sent_away};
use crate::serve::LastPlace;
use crate::submission::let_go_of_body;
use crate::trace::is_probe;

/// A route, as others are told of it.
struct Known {
    /// Its path, as the document has it.
    path: PathPattern,
    methods: Vec<Method>,
    /// These, as `Allow` lists them.
    allow: HeaderValue,
}

/// The outermost endpoint. Its answers name their route as the document does, in a [`PathPattern`].
pub(crate) struct Front {
    routes: BoxEndpoint<'static, Response>,
    /// What is known of every route, by its pattern in the router.
    known: HashMap<String, Known>,
    stopping: Stopping,
    protection: Protection,
    cross_origin: Option<CrossOrigin>,
}

impl Front {
    pub(crate) fn new(routes: impl OpenApi + Clone + 'static, stopping: Stopping) -> Self {
        Self {
            stopping,
            known: known(routes.clone()),
            routes: document::service(routes).into_endpoint(),
            protection: Protection::default(),
            cross_origin: None,
        }
    }

    /// The same behind a listener that speaks TLS, or does not.
    pub(crate) fn over_tls(mut self, tls: bool) -> Self {
        self.protection = Protection { tls };
        self
    }

    /// The same for pages of these origins too.
    pub(crate) fn open_to(mut self, origins: &[String]) -> Self {
        let methods = self.known.values().flat_map(|known| known.methods.clone());
        self.cross_origin = CrossOrigin::new(origins, list(methods.collect()));
        self
    }

    async fn route(&self, request: Request, method: &Method, path: &str) -> Response {
        // A panic ends the request, not the connection; nothing that it may have left half done is shared.
        let answered = AssertUnwindSafe(self.routes.call(request))
            .catch_unwind()
            .await;
        match answered {
            Ok(Ok(mut response)) => {
                if let Some(pattern) = response.extensions_mut().get_mut::<PathPattern>()
                    && let Some(known) = self.known.get(&*pattern.0)
                {
                    *pattern = known.path.clone();
                }
                response
            }
            Ok(Err(error)) => self.refuse(error, method, path),
            Err(_) => {
                // The panic hook has told what and where.
                tracing::error!(event = "http.handler_panicked", %method, path, "a handler panicked");
                Problem::internal().respond(path)
            }
        }
    }

    fn refuse(&self, error: poem::Error, method: &Method, path: &str) -> Response {
        let known = error.data::<PathPattern>();
        let known = known.and_then(|pattern| self.known.get(&*pattern.0));
        let allow = known
            .filter(|_| error.is::<MethodNotAllowedError>())
            .map(|known| known.allow.clone());
        let standing = error.data::<Standing>().cloned();
        let mut response = if allow.is_some() && method == Method::OPTIONS {
            StatusCode::NO_CONTENT.into()
        } else {
            Problem::from(error).respond(path)
        };
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        if let Some(standing) = standing {
            standing.tell(response.headers_mut());
        }
        if let Some(known) = known {
            response.set_data(known.path.clone());
        }
        response
    }

    /// What is said on every answer.
    fn finish(&self, response: &mut Response, version: Version) {
        let headers = response.headers_mut();
        self.protection.put_on(headers);
        // In HTTP/2 the connection says it by a frame of its own, when the time has come.
        if self.stopping.is_set() && version <= Version::HTTP_11 {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Nobody leaves for a connection that comes when all are in use.
fn crowded(request: &Request) -> Response {
    if takes_events(request.headers()) {
        return sent_away("too many connections", AWAY);
    }
    Problem::new(
        Kind::Overloaded,
        "as many connections are in use as this server takes",
    )
    .respond(request.uri().path())
}

impl Endpoint for Front {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let uri = request.uri().clone();
        let method = request.method().clone();
        let version = request.version();
        let origin = match &self.cross_origin {
            None => None,
            Some(cross_origin) => {
                if let Some(mut permit) = cross_origin.permit(&method, request.headers()) {
                    self.finish(&mut permit, version);
                    return Ok(permit);
                }
                cross_origin.of(request.headers())
            }
        };
        let takes_gzip = takes_gzip(request.headers());
        if method == Method::HEAD {
            // hyper leaves the body away and keeps its length.
            request.set_method(Method::GET);
        }
        let mut response = if request.data::<LastPlace>().is_some() && !is_probe(uri.path()) {
            let_go_of_body(&mut request);
            crowded(&request)
        } else {
            self.route(request, &method, uri.path()).await
        };
        if compression::pays(&mut response) {
            // In a box, so that a request that waits needs no room for it.
            response = Box::pin(compression::pack(response, takes_gzip)).await;
        }
        if let Some(cross_origin) = &self.cross_origin {
            cross_origin.tell(origin, response.headers_mut());
        }
        self.finish(&mut response, version);
        Ok(response)
    }
}

fn known<T: OpenApi>(routes: T) -> HashMap<String, Known> {
    let paths = T::meta().into_iter().flat_map(|api| api.paths);
    let documented: HashMap<String, Arc<str>> = paths
        .map(|path| (shape(&path.path), path.path.into()))
        .collect();
    let mut table = HashMap::new();
    routes.add_routes(&mut table);
    table
        .into_iter()
        .filter_map(|(pattern, endpoints)| {
            let mut methods: Vec<Method> = endpoints.into_keys().collect();
            if methods.contains(&Method::GET) {
                methods.push(Method::HEAD);
            }
            methods.push(Method::OPTIONS);
            let known = Known {
                path: PathPattern(documented.get(&shape(&pattern))?.clone()),
                allow: list(methods.clone()),
                methods,
            };
            Some((pattern, known))
        })
        .collect()
}

/// Methods as a header lists them, each once.
fn list(mut methods: Vec<Method>) -> HeaderValue {
    methods.sort_unstable_by(|left, right| left.as_str().cmp(right.as_str()));
    methods.dedup();
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    // Names of methods are valid in a header.
    HeaderValue::try_from(names.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}
