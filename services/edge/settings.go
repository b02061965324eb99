package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// settings is what the environment decides; README.md lists the variables.
type settings struct {
	Listen                            string
	SidecarURL                        string
	SidecarToken                      string
	JWKSURL                           string
	Issuer                            string
	Audience                          string
	CORSOrigins                       []string
	MaxBodyBytes                      int64
	BodyTimeout                       time.Duration
	JWKSMinRefresh                    time.Duration
	JWKSMaxAge                        time.Duration
	KeyTTL                            time.Duration
	RevocationInterval                time.Duration
	KeepConnected                     time.Duration
	RateAddress, RateUser, RatePublic int
	TrustedProxies                    []netip.Prefix
	DrainDelay                        time.Duration
	ConfigFile                        string
	OpenAPI                           []byte
}

// environment reads variables and collects what is wrong with them, so that one start names every fault.
type environment struct {
	getenv func(string) string
	faults []error
}

func (e *environment) text(name, fallback string) string {
	return cmp.Or(strings.TrimSpace(e.getenv(name)), fallback)
}

func (e *environment) number(name, fallback string, low, high int64) int64 {
	value, err := strconv.ParseInt(e.text(name, fallback), 10, 64)
	if err != nil || value < low || value > high {
		e.faults = append(e.faults, fmt.Errorf("%s: want a whole number from %d to %d", name, low, high))
	}
	return value
}

func (e *environment) seconds(name, fallback string) time.Duration {
	return e.secondsWithin(name, fallback, 0, 86400)
}

func (e *environment) secondsWithin(name, fallback string, low, high float64) time.Duration {
	value, err := strconv.ParseFloat(e.text(name, fallback), 64)
	if err != nil || !(value >= low && value <= high) {
		e.faults = append(e.faults, fmt.Errorf("%s: want seconds from %g to %g", name, low, high))
	}
	return time.Duration(value * float64(time.Second))
}

// rate is a number of calls a minute; 0 is no limit, which is the default on a laptop.
func (e *environment) rate(name, fallback string) int {
	if e.text("YOCASO_ENV", "local") == "local" {
		fallback = "0"
	}
	return int(e.number(name, fallback, 0, 1_000_000))
}

func (e *environment) networks(name string) []netip.Prefix {
	var networks []netip.Prefix
	for _, text := range strings.Split(e.text(name, ""), ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		network, err := netip.ParsePrefix(text)
		if err != nil {
			e.faults = append(e.faults, fmt.Errorf("%s: %q is not a network such as 10.0.0.0/8", name, text))
		}
		networks = append(networks, network)
	}
	return networks
}

func (e *environment) url(name, fallback string) string {
	value := e.text(name, fallback)
	parsed, err := url.Parse(value)
	if err != nil || (parsed.Scheme != "http" && parsed.Scheme != "https") || parsed.Host == "" {
		e.faults = append(e.faults, fmt.Errorf("%s: want an http or https URL", name))
	}
	return value
}

func (e *environment) file(name string, fallbacks ...string) []byte {
	candidates := fallbacks
	if chosen := e.text(name, ""); chosen != "" {
		candidates = []string{chosen}
	}
	for _, candidate := range candidates {
		if content, err := os.ReadFile(candidate); err == nil {
			return content
		}
	}
	e.faults = append(e.faults, fmt.Errorf("%s: cannot read %s", name, strings.Join(candidates, " or ")))
	return nil
}

// origins refuses what a browser would never send, because such an entry silently matches nothing.
func (e *environment) origins(name, fallback string) []string {
	var origins []string
	for _, origin := range strings.Split(e.text(name, fallback), ",") {
		origin = strings.TrimSuffix(strings.TrimSpace(origin), "/")
		if origin == "" {
			continue
		}
		if origin != "*" && !strings.HasPrefix(origin, "http://") && !strings.HasPrefix(origin, "https://") {
			e.faults = append(e.faults, fmt.Errorf("%s: %q is not an origin such as https://app.example", name, origin))
		}
		origins = append(origins, origin)
	}
	return origins
}

func readSettings(getenv func(string) string) (settings, error) {
	e := &environment{getenv: getenv}
	portName := "APP_PORT"
	if e.text("EDGE_PORT", "") != "" {
		portName = "EDGE_PORT"
	}
	port := e.number(portName, "8080", 1, 65535)
	sidecarPort := e.number("DAPR_HTTP_PORT", "3501", 1, 65535)
	sidecar := strings.TrimSuffix(e.url("EDGE_SIDECAR_URL", fmt.Sprintf("http://127.0.0.1:%d", sidecarPort)), "/")
	origins := "http://localhost:*,http://127.0.0.1:*"
	if e.text("YOCASO_ENV", "local") == "production" {
		origins = ""
	}
	s := settings{
		Listen:             net.JoinHostPort(e.text("YOCASO_BIND", "127.0.0.1"), strconv.FormatInt(port, 10)),
		SidecarURL:         sidecar,
		SidecarToken:       e.text("DAPR_API_TOKEN", ""),
		JWKSURL:            e.url("EDGE_JWKS_URL", sidecar+"/v1.0/invoke/auth/method/.well-known/jwks.json"),
		Issuer:             e.text("AUTH_ISSUER", "yocaso"),
		Audience:           e.text("AUTH_AUDIENCE", "yocaso"),
		CORSOrigins:        e.origins("EDGE_CORS_ORIGINS", origins),
		MaxBodyBytes:       e.number("EDGE_MAX_BODY_BYTES", "1048576", 1, 1<<32),
		BodyTimeout:        e.seconds("EDGE_BODY_TIMEOUT_SECONDS", "30"),
		JWKSMinRefresh:     e.seconds("EDGE_JWKS_MIN_REFRESH_SECONDS", "10"),
		JWKSMaxAge:         e.seconds("EDGE_JWKS_MAX_AGE_SECONDS", "300"),
		KeyTTL:             e.secondsWithin("EDGE_KEY_TTL_SECONDS", "2", 0, 2),
		RevocationInterval: e.secondsWithin("EDGE_REVOCATION_SECONDS", "2", 0.05, 2),
		KeepConnected:      e.secondsWithin("EDGE_KEEP_CONNECTED_SECONDS", "60", 0.05, 120),
		RateAddress:        e.rate("EDGE_RATE_ADDRESS", "600"),
		RateUser:           e.rate("EDGE_RATE_USER", "1200"),
		RatePublic:         e.rate("EDGE_RATE_PUBLIC", "60"),
		TrustedProxies:     e.networks("EDGE_TRUSTED_PROXIES"),
		DrainDelay:         e.seconds("EDGE_DRAIN_SECONDS", "0"),
		ConfigFile:         e.text("EDGE_CONFIG", ""),
		OpenAPI: e.file("EDGE_OPENAPI_FILE",
			"services/contracts/openapi/yocaso.json", "../contracts/openapi/yocaso.json"),
	}
	return s, errors.Join(e.faults...)
}
