package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"text/template"

	krakendjose "github.com/krakend/krakend-jose/v2"
	"github.com/luraproject/lura/v2/config"
	luragin "github.com/luraproject/lura/v2/router/gin"
)

//go:embed krakend.json
var embeddedConfig []byte

// namespace is the key of the edge's own settings in the extra_config of the service and of an endpoint.
const namespace = "yocaso/edge"

// endpointOptions are the flags that a method's contract sets on its endpoint.
type endpointOptions struct {
	Stream bool `json:"stream"`
	Public bool `json:"public"`
	// Completes marks a method that finishes begun work: admission control never sheds it.
	Completes bool `json:"completes"`
	// Waits marks a method that waits for an event: its latency is no measure of load.
	Waits bool `json:"waits"`
}

// readConfig parses krakend.json like KrakenD's flexible configuration: a template whose env function inserts settings.
func readConfig(s settings) (config.ServiceConfig, error) {
	config.ExtraConfigAlias = map[string]string{
		"auth/validator": krakendjose.ValidatorNamespace,
		"router":         luragin.Namespace,
	}
	parser := config.NewParserWithFileReader(func(file string) ([]byte, error) {
		source := embeddedConfig
		if file != "" {
			content, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			source = content
		}
		return expandTemplate(source, map[string]string{
			"EDGE_SIDECAR_URL": s.SidecarURL,
			"EDGE_JWKS_URL":    s.JWKSURL,
			"EDGE_ISSUER":      s.Issuer,
			"EDGE_AUDIENCE":    s.Audience,
		})
	})
	var parsed config.ServiceConfig
	err := withoutPanic(func() (err error) {
		parsed, err = parser.Parse(s.ConfigFile)
		parsed.Normalize()
		return err
	})
	if err != nil {
		return parsed, fmt.Errorf("EDGE_CONFIG: %w", err)
	}
	return parsed, nil
}

// withoutPanic returns a panic as an error: Lura and gin panic on some invalid configurations.
func withoutPanic(use func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("the configuration is invalid: %v", cause)
		}
	}()
	return use()
}

func expandTemplate(source []byte, values map[string]string) ([]byte, error) {
	env := func(name string) (string, error) {
		value, known := values[name]
		if !known {
			return "", fmt.Errorf("the configuration uses the unknown variable %s", name)
		}
		quoted, err := json.Marshal(value)
		return string(bytes.Trim(quoted, `"`)), err
	}
	parsed, err := template.New("krakend.json").Funcs(template.FuncMap{"env": env}).Parse(string(source))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = parsed.Execute(&out, nil)
	return out.Bytes(), err
}

// decodeExtra decodes the edge's part of an extra_config; absent fields stay zero.
func decodeExtra[T any](extra config.ExtraConfig) (T, error) {
	var decoded T
	raw, err := json.Marshal(extra[namespace])
	if err == nil {
		err = json.Unmarshal(raw, &decoded)
	}
	return decoded, err
}
