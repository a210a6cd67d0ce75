#!/usr/bin/env python3
"""Cuts Kubernetes' own OpenAPI v3 documents down to the kinds that the embedded API server serves.

    trim.py DIR     DIR is api/openapi-spec/v3 of a kubernetes/kubernetes checkout or of the module k8s.io/kubernetes

Writes one JSON file a group version beside this script. The server publishes them (kubectl explain, client-side
validation) and reads from them the types, list kinds and merge keys of the builtin kinds.
The texts are Kubernetes' (Apache License 2.0, The Kubernetes Authors).
"""
import json
import pathlib
import sys

# Group version: resources to keep.
KEEP = {
    "api/v1": "namespaces pods nodes events secrets configmaps serviceaccounts",
    "apis/coordination.k8s.io/v1": "leases",
    "apis/events.k8s.io/v1": "events",
    "apis/apiextensions.k8s.io/v1": "customresourcedefinitions",
    "apis/authorization.k8s.io/v1": "selfsubjectaccessreviews selfsubjectrulesreviews",
    "apis/authentication.k8s.io/v1": "selfsubjectreviews",
}
# Subresources that are not served.
DROP = ("/attach", "/exec", "/log", "/portforward", "/proxy", "/eviction", "/ephemeralcontainers", "/resize", "/token")


def resource_of(path, prefix):
    rest = path.removeprefix(f"/{prefix}/")
    rest = rest.removeprefix("namespaces/{namespace}/")
    return rest.split("/")[0]


def refs(node, found):
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            found.add(node["$ref"].rsplit("/", 1)[1])
        for value in node.values():
            refs(value, found)
    elif isinstance(node, list):
        for value in node:
            refs(value, found)


def operation(op):
    kept = {k: op[k] for k in ("description", "operationId", "x-kubernetes-action", "x-kubernetes-group-version-kind") if k in op}
    names = [p for p in op.get("parameters", []) if p.get("name") in ("fieldValidation", "dryRun", "fieldManager", "force")]
    if names:
        kept["parameters"] = [{"name": p["name"], "in": "query", "schema": p["schema"]} for p in names]
    schema = op.get("responses", {}).get("200", {}).get("content", {}).get("application/json", {}).get("schema")
    kept["responses"] = {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}} if schema else {"200": {"description": "OK"}}
    return kept


def main():
    source = pathlib.Path(sys.argv[1])
    here = pathlib.Path(__file__).parent
    for prefix, resources in KEEP.items():
        document = json.loads((source / (prefix.replace("/", "__") + "_openapi.json")).read_text())
        paths = {}
        for path, item in document["paths"].items():
            if "/watch/" in path or not path.startswith(f"/{prefix}/"):
                continue
            if any(path.endswith(d) or d + "/" in path for d in DROP):
                continue
            if resource_of(path, prefix) not in resources.split():
                continue
            paths[path] = {
                verb: operation(op) for verb, op in item.items() if verb in ("get", "post", "put", "patch", "delete")
            }
            if "parameters" in item:
                paths[path]["parameters"] = [
                    {"name": p["name"], "in": "path", "required": True, "schema": p["schema"]}
                    for p in item["parameters"] if p.get("in") == "path"
                ]
        schemas = document["components"]["schemas"]
        wanted, queue = set(), set()
        refs(paths, queue)
        # DeleteOptions and friends are bodies, which the operations above no longer name.
        while queue:
            name = queue.pop()
            if name not in wanted:
                wanted.add(name)
                refs(schemas[name], queue)
        out = {
            "openapi": document["openapi"],
            "info": {"title": "Kubernetes", "version": document["info"]["version"]},
            "paths": paths,
            "components": {"schemas": {name: schemas[name] for name in sorted(wanted)}},
        }
        (here / (prefix.replace("/", "__") + ".json")).write_text(json.dumps(out, separators=(",", ":"), sort_keys=True) + "\n")


main()
