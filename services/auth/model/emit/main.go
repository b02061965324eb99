// Writes the authorization model as JSON, which OpenFGA takes, from its DSL, which people read.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"

	"github.com/openfga/language/pkg/go/transformer"
)

func main() {
	check := flag.Bool("check", false, "fail when the JSON is not what the DSL says, instead of writing it")
	flag.Parse()
	if err := emit("../authorization.fga", "../authorization.json", *check); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func emit(from, to string, check bool) error {
	dsl, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	compact, err := transformer.TransformDSLToJSON(string(dsl))
	if err != nil {
		return err
	}
	// The transformer varies its white space from build to build; this does not.
	var model any
	if err := json.Unmarshal([]byte(compact), &model); err != nil {
		return err
	}
	wanted, err := json.MarshalIndent(model, "", "  ")
	if err != nil {
		return err
	}
	wanted = append(wanted, '\n')
	if !check {
		return os.WriteFile(to, wanted, 0o644)
	}
	if found, err := os.ReadFile(to); err != nil || !bytes.Equal(found, wanted) {
		return fmt.Errorf("authorization.json is not what authorization.fga says: run `poe emit`")
	}
	return nil
}
