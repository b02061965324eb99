module github.com/yocaso/yocaso/tests/foreign/go

go 1.26.0
