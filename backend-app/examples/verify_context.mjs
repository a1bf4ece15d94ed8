// Verifies X-Tenant-Context in Node (22 or later), with nothing but its standard library.
//
//   import { TenantContexts } from "./verify_context.mjs";
//   const contexts = new TenantContexts("http://127.0.0.1:8600/.well-known/schoolgate/jwks.json", "shared");
//   const tenant = await contexts.verify(request.headers["x-tenant-context"]);   // throws: answer 401
//
// From the command line: node verify_context.mjs <URL of the keys> <pool> <token>

import { createPublicKey, verify } from "node:crypto";
import { pathToFileURL } from "node:url";

const REFETCH_INTERVAL_MS = 5_000; // invented key ids must not make us a load on the source of keys
const LEEWAY_S = 5;
const ISSUED_AHEAD_S = 60;

export class TenantContexts {
  #keys = new Map();
  #fetchedAt = -Infinity;

  constructor(keysUrl, audience, issuer = "schoolgate") {
    Object.assign(this, { keysUrl, audience, issuer });
  }

  /** The claims of a token that holds; throws an Error otherwise. `now` is in seconds since 1970. */
  async verify(token, now = Date.now() / 1000) {
    // Node joins repeated headers with a comma; a comma is in no token, so several are refused as well.
    const parts = typeof token === "string" ? token.split(".") : [];
    if (parts.length !== 3 || !parts.every((part) => /^[\w-]+$/.test(part))) throw new Error("not a compact JWS");
    const [header, claims] = parts.slice(0, 2).map((part) => JSON.parse(Buffer.from(part, "base64url")));
    if (header.alg !== "EdDSA" || header.crit !== undefined) throw new Error("not signed with plain EdDSA");
    const key = await this.#key(header.kid);
    const signed = Buffer.from(`${parts[0]}.${parts[1]}`);
    if (!verify(null, signed, key, Buffer.from(parts[2], "base64url"))) throw new Error("the signature does not hold");
    if (claims.iss !== this.issuer || claims.aud !== this.audience) throw new Error("from or for someone else");
    if (!(claims.exp + LEEWAY_S > now)) throw new Error("expired");
    if (!(claims.iat <= now + ISSUED_AHEAD_S)) throw new Error("issued in the future");
    if (!/^tnt_[0-9A-HJKMNP-TV-Z]{26}$/.test(claims.tenant_id) || claims.sub !== claims.tenant_id) throw new Error("no valid tenant");
    return claims;
  }

  async #key(id) {
    if (!this.#keys.has(id) && performance.now() - this.#fetchedAt >= REFETCH_INTERVAL_MS) {
      this.#fetchedAt = performance.now();
      const answer = await fetch(this.keysUrl, { signal: AbortSignal.timeout(2_000) });
      if (!answer.ok) throw new Error(`the source of keys answered ${answer.status}`);
      const ed25519 = (await answer.json()).keys.filter((key) => key.kty === "OKP" && key.crv === "Ed25519");
      this.#keys = new Map(ed25519.map((key) => [key.kid, createPublicKey({ key, format: "jwk" })]));
    }
    if (!this.#keys.has(id)) throw new Error("signed with an unknown key");
    return this.#keys.get(id);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [keysUrl, audience, token] = process.argv.slice(2);
  console.log(JSON.stringify(await new TenantContexts(keysUrl, audience).verify(token)));
}
