package main

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// addressOf is whom a call's address counts for: the peer, or behind proxies of ours the last hop that is not one.
// Who has an IPv6 address has the whole /64, so that counts as one.
func (e *edge) addressOf(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	found := peer.Addr().Unmap().WithZone("")
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		if !e.trusted(found) {
			break
		}
		next, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			break
		}
		found = next.Unmap().WithZone("")
	}
	if found.Is6() {
		network, _ := found.Prefix(64)
		return network.String()
	}
	return found.String()
}

func (e *edge) trusted(address netip.Addr) bool {
	return slices.ContainsFunc(e.settings.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(address) })
}
