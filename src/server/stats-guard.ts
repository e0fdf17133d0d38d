// Who may ask the stats port what: pure checks on the Host header, the peer's address and a browser's origin.
import { isIP, isIPv4, isIPv6 } from 'node:net';

/** `host`, `host:port`, `[v6]`, `[v6]:port`; nothing else a Host header may be made to hold. */
const HOST = /^(?:\[([^\]]+)\]|([^\s:/?#@[\]\\,]+))(?::\d{0,5})?$/;

/**
 * DNS rebinding: a page of evil.example whose name suddenly resolves to 127.0.0.1 may read every answer, and its requests
 * carry `Host: evil.example`. An IP literal or localhost cannot be rebound; other names must be in the config.
 *
 * @param allowed lower case, with or without a port
 */
export function isHostAllowed(header: string | undefined, allowed: ReadonlySet<string>): boolean {
  if (header === undefined) return false;
  const text = header.toLowerCase();
  const match = HOST.exec(text);
  if (!match) return false;
  const [, v6, name] = match;
  if (v6 !== undefined) return isIPv6(v6);
  return name !== undefined && (name === 'localhost' || isIPv4(name) || allowed.has(name) || allowed.has(text));
}

/**
 * On a unix socket the name says nothing: no name resolves to a file and no browser opens one, so there is nothing to
 * rebind, and programs fill Host with what they like (`curl --unix-socket /run/stats.sock http://aiproxy/stats`).
 */
export function isWellFormedHost(header: string | undefined): boolean {
  return header !== undefined && HOST.test(header);
}

/** @param address of the peer, as the socket tells it; an IPv4 peer of a dual-stack socket reads `::ffff:127.0.0.1` */
export function isLoopback(address: string | undefined): boolean {
  if (address === undefined || isIP(address) === 0) return false;
  if (address === '::1') return true;
  const v4 = address.toLowerCase().startsWith('::ffff:') ? address.slice('::ffff:'.length) : address;
  return isIPv4(v4) && v4.startsWith('127.');
}

/**
 * Cross-site request forgery: a browser lets any page send a POST to localhost, but says where it came from. Programs send
 * neither header. `same-site` is refused too: every port of localhost is the same site.
 */
export function isCrossSite(origin: string | undefined, fetchSite: string | undefined, host: string): boolean {
  if (fetchSite !== undefined && fetchSite !== 'same-origin' && fetchSite !== 'none') return true;
  if (origin === undefined) return false;
  const from = URL.parse(origin);
  const here = URL.parse(`${from?.protocol ?? 'http:'}//${host}`);
  return from === null || here === null || from.host !== here.host;
}
