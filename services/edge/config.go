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

// namespace holds our own settings in the extra_config of the service and of an endpoint.
const namespace = "yocaso/edge"

// readConfig parses krakend.json as KrakenD's flexible configuration does: it is a template whose env function
// gives the values that the environment decides.
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
		return expand(source, map[string]string{
			"EDGE_SIDECAR_URL": s.SidecarURL,
			"EDGE_JWKS_URL":    s.JWKSURL,
			"EDGE_ISSUER":      s.Issuer,
			"EDGE_AUDIENCE":    s.Audience,
		})
	})
	parsed, err := parser.Parse(s.ConfigFile)
	if err != nil {
		return parsed, fmt.Errorf("EDGE_CONFIG: %w", err)
	}
	parsed.Normalize()
	return parsed, nil
}

func expand(source []byte, values map[string]string) ([]byte, error) {
	env := func(name string) (string, error) {
		value, known := values[name]
		if !known {
			return "", fmt.Errorf("the configuration asks for %s, which is not set", name)
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

// ownConfig decodes our part of an extra_config; what is absent stays zero.
func ownConfig[T any](extra config.ExtraConfig) (T, error) {
	var own T
	raw, err := json.Marshal(extra[namespace])
	if err == nil {
		err = json.Unmarshal(raw, &own)
	}
	return own, err
}

type endpointOptions struct {
	Stream bool `json:"stream"`
	Public bool `json:"public"`
	// Completes begun work: it is passed on whatever the load.
	Completes bool `json:"completes"`
	// Waits for something else before it answers: how long that takes says nothing of the load.
	Waits bool `json:"waits"`
}
