# examples/edge.ts on workerd: see docs/edge.md.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [ (name = "main", worker = .worker) ],
  sockets = [ (name = "http", address = "127.0.0.1:8000", http = (), service = "main") ],
);

const worker :Workerd.Worker = (
  modules = [ (name = "edge", esModule = embed "../compat/out/edge.js") ],
  compatibilityDate = "2026-08-01",
  compatibilityFlags = [ "enable_request_signal" ],
  durableObjectNamespaces = [ (className = "Restaurant", uniqueKey = "restaurant") ],
  durableObjectStorage = (inMemory = void),
  bindings = [ (name = "RESTAURANT", durableObjectNamespace = "Restaurant") ],
);
