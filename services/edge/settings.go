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

// settings holds the configuration from environment variables; README.md lists them.
type settings struct {
	Listen                            string
	SidecarURL                        string
	SidecarToken                      string
	AppToken                          string // of the edge's sidecar
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
	KeepAliveInterval                 time.Duration
	SidecarStreamLimit                time.Duration
	RateAddress, RateUser, RatePublic int
	TrustedProxies                    []netip.Prefix
	DrainDelay                        time.Duration
	ConfigFile                        string
	OpenAPI                           []byte
	ExportSpans                       bool
}

func readSettings(getenv func(string) string) (settings, error) {
	e := &environment{getenv: getenv}
	portName := "APP_PORT"
	if e.text("EDGE_PORT", "") != "" {
		portName = "EDGE_PORT"
	}
	port := e.integer(portName, "8080", 1, 65535)
	sidecarPort := e.integer("DAPR_HTTP_PORT", "3501", 1, 65535)
	sidecar := strings.TrimSuffix(e.url("EDGE_SIDECAR_URL", fmt.Sprintf("http://127.0.0.1:%d", sidecarPort)), "/")
	origins := "http://localhost:*,http://127.0.0.1:*"
	if e.text("YOCASO_ENV", "local") == "production" {
		origins = ""
	}
	s := settings{
		Listen:             net.JoinHostPort(e.text("YOCASO_BIND", "127.0.0.1"), strconv.FormatInt(port, 10)),
		SidecarURL:         sidecar,
		SidecarToken:       e.text("DAPR_API_TOKEN", ""),
		AppToken:           e.text("APP_API_TOKEN", ""),
		JWKSURL:            e.url("EDGE_JWKS_URL", invokeURL(sidecar, "auth", "/.well-known/jwks.json")),
		Issuer:             e.text("AUTH_ISSUER", "yocaso"),
		Audience:           e.text("AUTH_AUDIENCE", "yocaso"),
		CORSOrigins:        e.origins("EDGE_CORS_ORIGINS", origins),
		MaxBodyBytes:       e.integer("EDGE_MAX_BODY_BYTES", "1048576", 1, 1<<32),
		BodyTimeout:        e.seconds("EDGE_BODY_TIMEOUT_SECONDS", "30", 0, 86400),
		JWKSMinRefresh:     e.seconds("EDGE_JWKS_MIN_REFRESH_SECONDS", "10", 0, 86400),
		JWKSMaxAge:         e.seconds("EDGE_JWKS_MAX_AGE_SECONDS", "300", 0, 86400),
		KeyTTL:             e.seconds("EDGE_KEY_TTL_SECONDS", "2", 0, 2),
		RevocationInterval: e.seconds("EDGE_REVOCATION_SECONDS", "2", 0.05, 2),
		KeepAliveInterval:  e.seconds("EDGE_KEEP_CONNECTED_SECONDS", "60", 0.05, 120),
		SidecarStreamLimit: e.seconds("EDGE_SIDECAR_STREAM_SECONDS", "140", 0.05, 150),
		RateAddress:        e.rate("EDGE_RATE_ADDRESS", "600"),
		RateUser:           e.rate("EDGE_RATE_USER", "1200"),
		RatePublic:         e.rate("EDGE_RATE_PUBLIC", "60"),
		TrustedProxies:     e.networks("EDGE_TRUSTED_PROXIES"),
		DrainDelay:         e.seconds("EDGE_DRAIN_SECONDS", "0", 0, 86400),
		ConfigFile:         e.text("EDGE_CONFIG", ""),
		OpenAPI: e.file("EDGE_OPENAPI_FILE",
			"services/contracts/openapi/yocaso.json", "../contracts/openapi/yocaso.json"),
	}
	if s.ExportSpans = e.text(endpointVariable, "") != ""; s.ExportSpans {
		e.url(endpointVariable, "")
	}
	return s, errors.Join(e.errs...)
}

// environment parses variables and collects the errors, so that one failed start reports every invalid variable.
type environment struct {
	getenv func(string) string
	errs   []error
}

func (e *environment) reject(name, format string, args ...any) {
	e.errs = append(e.errs, fmt.Errorf(name+": "+format, args...))
}

func (e *environment) text(name, fallback string) string {
	return cmp.Or(strings.TrimSpace(e.getenv(name)), fallback)
}

// list splits at commas and drops empty entries.
func (e *environment) list(name, fallback string) []string {
	var entries []string
	for entry := range strings.SplitSeq(e.text(name, fallback), ",") {
		if entry = strings.TrimSpace(entry); entry != "" {
			entries = append(entries, entry)
		}
	}
	return entries
}

func (e *environment) integer(name, fallback string, low, high int64) int64 {
	value, err := strconv.ParseInt(e.text(name, fallback), 10, 64)
	if err != nil || value < low || value > high {
		e.reject(name, "must be a whole number from %d to %d", low, high)
	}
	return value
}

func (e *environment) seconds(name, fallback string, low, high float64) time.Duration {
	value, err := strconv.ParseFloat(e.text(name, fallback), 64)
	if err != nil || !(value >= low && value <= high) { // NaN fails this comparison
		e.reject(name, "must be a number of seconds from %g to %g", low, high)
	}
	return time.Duration(value * float64(time.Second))
}

// rate is in calls per minute; 0 means unlimited, the default in a local environment.
func (e *environment) rate(name, fallback string) int {
	if e.text("YOCASO_ENV", "local") == "local" {
		fallback = "0"
	}
	return int(e.integer(name, fallback, 0, 1_000_000))
}

func (e *environment) networks(name string) []netip.Prefix {
	var networks []netip.Prefix
	for _, entry := range e.list(name, "") {
		network, err := netip.ParsePrefix(entry)
		if err != nil {
			e.reject(name, "%q is not a network such as 10.0.0.0/8", entry)
		}
		networks = append(networks, network)
	}
	return networks
}

func (e *environment) url(name, fallback string) string {
	value := e.text(name, fallback)
	parsed, err := url.Parse(value)
	if err != nil || (parsed.Scheme != "http" && parsed.Scheme != "https") || parsed.Host == "" {
		e.reject(name, "must be an http or https URL")
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
	e.reject(name, "cannot read %s", strings.Join(candidates, " or "))
	return nil
}

// origins rejects an entry without a scheme: it would silently match no browser's Origin header.
func (e *environment) origins(name, fallback string) []string {
	var origins []string
	for _, entry := range e.list(name, fallback) {
		origin := strings.TrimSuffix(entry, "/")
		if origin == "" {
			continue
		}
		if origin != "*" && !strings.HasPrefix(origin, "http://") && !strings.HasPrefix(origin, "https://") {
			e.reject(name, "%q is not an origin such as https://app.example", origin)
		}
		origins = append(origins, origin)
	}
	return origins
}
