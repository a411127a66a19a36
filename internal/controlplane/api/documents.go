package api

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"nixfleet/internal/controlplane/core"
	"nixfleet/internal/wire"
)

func (a *API) fleet(w http.ResponseWriter, r *http.Request, _ caller) error {
	return serveDocument(w, r, a.Core.Documents().FleetDocument())
}

func (a *API) fleetSig(w http.ResponseWriter, r *http.Request, _ caller) error {
	return serveSignature(w, r, a.Core.Documents().FleetDocument())
}

func (a *API) manifest(w http.ResponseWriter, r *http.Request, _ caller) error {
	return serveDocument(w, r, a.Core.Documents().Manifest(r.PathValue("id")))
}

func (a *API) manifestSig(w http.ResponseWriter, r *http.Request, _ caller) error {
	return serveSignature(w, r, a.Core.Documents().Manifest(r.PathValue("id")))
}

func serveDocument(w http.ResponseWriter, r *http.Request, d *core.Served) error {
	if d == nil {
		return noDocument()
	}
	body := d.Bytes
	w.Header().Set("Content-Type", wire.ContentType)
	w.Header().Set("Vary", "Accept-Encoding")
	if acceptsGzip(r) {
		w.Header().Set("Content-Encoding", "gzip")
		body = d.Gzip()
	}
	return serveBytes(w, r, d.ETag, body)
}

func serveSignature(w http.ResponseWriter, r *http.Request, d *core.Served) error {
	if d == nil {
		return noDocument()
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	return serveBytes(w, r, d.ETag, d.Signature)
}

func noDocument() error {
	return wire.Errorf(wire.SlugNotFound, "no verified document of that name is known here")
}

// serveBytes answers bytes that have a tag, or that they are unchanged.
func serveBytes(w http.ResponseWriter, r *http.Request, etag string, body []byte) error {
	w.Header().Set("ETag", etag)
	w.Header().Set("Cache-Control", "no-cache")
	if slices.ContainsFunc(r.Header.Values("If-None-Match"), func(v string) bool { return v == "*" || strings.Contains(v, etag) }) {
		w.Header().Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the caller is gone: nothing is left to be told
	}
	return nil
}

func acceptsGzip(r *http.Request) bool {
	for _, v := range r.Header.Values("Accept-Encoding") {
		for part := range strings.SplitSeq(v, ",") {
			coding, quality, _ := strings.Cut(strings.TrimSpace(part), ";")
			if coding == "gzip" && strings.ReplaceAll(quality, " ", "") != "q=0" {
				return true
			}
		}
	}
	return false
}
