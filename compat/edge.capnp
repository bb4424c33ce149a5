using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [ (name = "main", worker = (
    modules = [ (name = "worker", esModule = embed "out/edge_worker.js") ],
    compatibilityDate = "2026-08-01",
    compatibilityFlags = [ "enable_request_signal" ],
    durableObjectNamespaces = [ (className = "Shared", uniqueKey = "shared") ],
    durableObjectStorage = (inMemory = void),
    bindings = [ (name = "SHARED", durableObjectNamespace = "Shared") ],
  )) ],
  sockets = [ (name = "http", address = "127.0.0.1:0", http = (), service = "main") ],
);
