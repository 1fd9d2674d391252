//! Every route behind the admission: what each operation needs, in one table.

use std::collections::HashMap;
use std::sync::Arc;

use access::Scope;
use poem::endpoint::BoxEndpoint;
use poem::http::Method;
use poem::{Endpoint, EndpointExt, Request, Response};
use poem_openapi::OpenApi;
use poem_openapi::registry::{MetaApi, Registry};

use crate::admission::Admission;
use crate::meters::LIMITED;
use crate::rate::Rates;
use crate::submission::let_go_of_body;
use crate::{HttpConfig, Meters};

/// What each operation needs, by its `operationId`; `None` is open to everybody. A test compares it with the document.
const NEEDS: &[(&str, Option<Scope>)] = &[
    ("submitTask", Some(Scope::Submit)),
    ("submitTasks", Some(Scope::Submit)),
    ("readTask", Some(Scope::Read)),
    ("listTasks", Some(Scope::Read)),
    ("cancelTask", Some(Scope::Admin)),
    ("retryTask", Some(Scope::Admin)),
    ("followTasks", Some(Scope::Read)),
    ("readMetrics", Some(Scope::Read)),
    // Whoever asks these, a load balancer or an orchestrator, has no key; they tell what is up and how quickly it answers, and of a
    // worker why it is not ready, and nothing of any task.
    ("isLive", None),
    ("isReady", None),
    // How to ask is no secret.
    ("goToDocs", None),
    ("readDocs", None),
    ("readDocument", None),
];

/// What an operation needs. One that is in no table needs the most.
pub(crate) fn need_of(operation: &str) -> Option<Scope> {
    NEEDS
        .iter()
        .find(|(name, _)| *name == operation)
        .map_or(Some(Scope::Admin), |(_, need)| *need)
}

/// Routes that let in only whom the admission lets in.
#[derive(Clone)]
pub(crate) struct Guarded<T> {
    routes: T,
    admission: Admission,
    rates: Option<Arc<Rates>>,
    meters: Arc<Meters>,
}

impl<T> Guarded<T> {
    pub(crate) fn new(routes: T, config: &HttpConfig, meters: Arc<Meters>) -> Self {
        Self {
            routes,
            admission: config.admission.clone(),
            rates: config.rate_limit.map(|limit| Arc::new(Rates::new(limit))),
            meters,
        }
    }
}

impl<T: OpenApi> OpenApi for Guarded<T> {
    fn meta() -> Vec<MetaApi> {
        T::meta()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    /// Each endpoint is wrapped where it is put on its path, so that no spelling of a path leads around the guard.
    fn add_routes(self, table: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {
        let needs = needs::<T>();
        let mut routes = HashMap::new();
        self.routes.add_routes(&mut routes);
        for (path, endpoints) in routes {
            let guarded = endpoints.into_iter().map(|(method, endpoint)| {
                let need = needs
                    .get(&(shape(&path), method.clone()))
                    .map_or(Some(Scope::Admin), |need| *need);
                let endpoint = match need {
                    None => endpoint,
                    Some(need) => {
                        let (admission, meters) = (self.admission.clone(), self.meters.clone());
                        let rates = self.rates.clone();
                        let guard = Guard {
                            endpoint,
                            need,
                            admission,
                            rates,
                            meters,
                        };
                        guard.boxed()
                    }
                };
                (method, endpoint)
            });
            table.entry(path.clone()).or_default().extend(guarded);
        }
    }
}

/// A path with its parameters nameless: the document and the router call them differently.
pub(crate) fn shape(path: &str) -> String {
    let parts: Vec<&str> = path
        .split('/')
        .map(|part| {
            if part.starts_with([':', '{']) {
                ":"
            } else {
                part
            }
        })
        .collect();
    parts.join("/")
}

/// What each route needs, by the shape of its path and the method.
fn needs<T: OpenApi>() -> HashMap<(String, Method), Option<Scope>> {
    T::meta()
        .into_iter()
        .flat_map(|api| api.paths)
        .flat_map(|path| {
            let pattern = shape(&path.path);
            path.operations.into_iter().map(move |operation| {
                let need = need_of(operation.operation_id.unwrap_or_default());
                ((pattern.clone(), operation.method), need)
            })
        })
        .collect()
}

/// One route behind the admission.
struct Guard {
    endpoint: BoxEndpoint<'static>,
    need: Scope,
    admission: Admission,
    rates: Option<Arc<Rates>>,
    meters: Arc<Meters>,
}

impl Endpoint for Guard {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        match self.admission.admit(request.headers(), self.need) {
            Ok(caller) => {
                if let Some(name) = caller.key() {
                    tracing::Span::current().record("api_key", &*name);
                }
                let Some(rates) = &self.rates else {
                    request.set_data(caller);
                    return self.endpoint.call(request).await;
                };
                let standing = rates.spend(&request, &caller);
                if standing.is_over() {
                    self.meters.limited(caller.key().as_deref());
                    tracing::debug!(event = "http.refused", reason = LIMITED, api_key = caller.name(), peer = %request.remote_addr(), path = request.uri().path(), "a request was refused");
                    let response = standing.refuse(request.uri().path());
                    let_go_of_body(&mut request);
                    return Ok(response);
                }
                request.set_data(caller);
                match self.endpoint.call(request).await {
                    Ok(mut response) => {
                        standing.tell(response.headers_mut());
                        Ok(response)
                    }
                    Err(mut error) => {
                        // Whoever makes an answer of it tells.
                        error.set_data(standing);
                        Err(error)
                    }
                }
            }
            Err(refusal) => {
                self.meters.refused(&refusal);
                let path = request.uri().path();
                tracing::debug!(event = "http.refused", reason = refusal.reason(), api_key = refusal.key(), peer = %request.remote_addr(), path, "a request was refused");
                let response = refusal.respond(path);
                let_go_of_body(&mut request);
                Ok(response)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::Routes;

    /// A new route must say what it needs, and a table with a route that is gone misleads.
    #[test]
    fn every_operation_says_what_it_needs() {
        let mut operations: Vec<&str> = Routes::meta()
            .into_iter()
            .flat_map(|api| api.paths)
            .flat_map(|path| path.operations)
            .map(|operation| operation.operation_id.expect("operations are named"))
            .collect();
        let mut said: Vec<&str> = NEEDS.iter().map(|(operation, _)| *operation).collect();
        operations.sort_unstable();
        said.sort_unstable();
        assert_eq!(said, operations);
        assert_eq!(need_of("forgotten"), Some(Scope::Admin));
    }

    /// Otherwise a route would be looked up under another name than it has, and need `admin`.
    #[test]
    fn patterns_of_the_document_are_those_of_the_router() {
        let needs = needs::<Routes>();
        let operations = Routes::meta()
            .into_iter()
            .flat_map(|api| api.paths)
            .map(|path| path.operations.len())
            .sum::<usize>();
        assert_eq!(needs.len(), operations);
        let read = (shape("/tasks/:param0"), Method::GET);
        assert_eq!(needs.get(&read), Some(&Some(Scope::Read)));
    }
}
