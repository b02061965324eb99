package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
)

func TestXForwardedForIsTrustedOnlyFromTrustedProxies(t *testing.T) {
	handle, _ := recordingHandler()
	sidecar := newFakeSidecar(t, handle)
	for name, row := range map[string]struct {
		proxies string
		limited int
	}{"no trusted proxies": {"", 19}, "the peer is trusted": {"127.0.0.0/8", 0}} {
		t.Run(name, func(t *testing.T) {
			edge := startEdge(t, sidecar.URL, map[string]string{"EDGE_RATE_PUBLIC": "1", "EDGE_TRUSTED_PROXIES": row.proxies})
			var hop atomic.Int64
			count := burst(t, 20, func() reply {
				return post(t, edge, publicPath, "", "X-Forwarded-For", fmt.Sprintf("10.0.0.%d", hop.Add(1)))
			})
			if count[429] != row.limited {
				t.Errorf("got %v", count)
			}
		})
	}
}

func TestTheClientAddressIsTheLastUntrustedHop(t *testing.T) {
	e := &edge{settings: settings{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}}
	for name, row := range map[string]struct {
		peer      string
		forwarded []string
		want      string
	}{
		"no proxy":                {"203.0.113.9:1", nil, "203.0.113.9"},
		"forged header":           {"203.0.113.9:1", []string{"1.1.1.1"}, "203.0.113.9"},
		"behind one proxy":        {"10.0.0.1:1", []string{"203.0.113.9"}, "203.0.113.9"},
		"forged behind one proxy": {"10.0.0.1:1", []string{"1.1.1.1, 203.0.113.9"}, "203.0.113.9"},
		"several fields":          {"10.0.0.1:1", []string{"1.1.1.1", "203.0.113.9"}, "203.0.113.9"},
		"behind two proxies":      {"10.0.0.1:1", []string{"1.1.1.1, 203.0.113.9, 10.2.2.2"}, "203.0.113.9"},
		"forged proxy address":    {"10.0.0.1:1", []string{"10.3.3.3, 203.0.113.9"}, "203.0.113.9"},
		"only proxies":            {"10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		"no header":               {"10.0.0.1:1", nil, "10.0.0.1"},
		"malformed hop":           {"10.0.0.1:1", []string{"203.0.113.9, <script>"}, "10.0.0.1"},
		"malformed earlier hop":   {"10.0.0.1:1", []string{"<script>, 10.0.0.2"}, "10.0.0.2"},
		"IPv6 by /64":             {"[2001:db8:1:2:3:4:5:6]:1", nil, "2001:db8:1:2::/64"},
		"IPv4-mapped IPv6":        {"[::ffff:203.0.113.9]:1", nil, "203.0.113.9"},
		"IPv6 proxy":              {"[fd00::1]:1", []string{"2001:db8::1"}, "2001:db8::/64"},
		"IPv4-mapped proxy":       {"[::ffff:10.0.0.1]:1", []string{"203.0.113.9"}, "203.0.113.9"},
		"address without a port":  {"pipe", nil, "pipe"},
	} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.RemoteAddr = row.peer
		r.Header["X-Forwarded-For"] = row.forwarded
		if got := e.clientAddress(r); got != row.want {
			t.Errorf("%s: got %s", name, got)
		}
	}
}
