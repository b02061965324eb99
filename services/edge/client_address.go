package main

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// clientAddress is the key of the address rate limits: the peer or, behind trusted proxies, the last X-Forwarded-For
// hop that is not one of them. IPv6 counts by /64, the least that a subscriber gets.
func (e *edge) clientAddress(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	address := peer.Addr().Unmap().WithZone("")
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		if !e.isTrustedProxy(address) {
			break
		}
		next, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			break
		}
		address = next.Unmap().WithZone("")
	}
	if address.Is6() {
		network, _ := address.Prefix(64)
		return network.String()
	}
	return address.String()
}

func (e *edge) isTrustedProxy(address netip.Addr) bool {
	return slices.ContainsFunc(e.settings.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(address) })
}
