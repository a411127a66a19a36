package api

// RouteTable is the router's own table, as "METHOD path", with whether the
// version of the protocol is required and how long a body may be.
func RouteTable() map[string]RouteRow {
	table := map[string]RouteRow{}
	for _, rt := range (&API{}).routes() {
		table[rt.method+" "+rt.path] = RouteRow{Protocol: rt.protocol, Limit: rt.limit}
	}
	return table
}

// RouteRow is what a route demands of every request.
type RouteRow struct {
	Protocol bool
	Limit    int64
}
