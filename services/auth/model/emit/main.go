// Command emit translates the authorization model from OpenFGA's DSL into the JSON that its API takes.
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
	check := flag.Bool("check", false, "fail if the JSON differs from the DSL, write nothing")
	flag.Parse()
	if err := emit("../authorization.fga", "../authorization.json", *check); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func emit(source, target string, check bool) error {
	dsl, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	unformatted, err := transformer.TransformDSLToJSON(string(dsl))
	if err != nil {
		return err
	}
	// The transformer's white space is not stable, so the JSON is formatted here.
	var model any
	if err := json.Unmarshal([]byte(unformatted), &model); err != nil {
		return err
	}
	wanted, err := json.MarshalIndent(model, "", "  ")
	if err != nil {
		return err
	}
	wanted = append(wanted, '\n')
	if !check {
		return os.WriteFile(target, wanted, 0o644)
	}
	if current, err := os.ReadFile(target); err != nil || !bytes.Equal(current, wanted) {
		return fmt.Errorf("authorization.json differs from authorization.fga: run `poe emit`")
	}
	return nil
}
