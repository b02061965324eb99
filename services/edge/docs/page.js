// The page works without any other host: whatever of Scalar's calls its makers' servers is off, and the page's
// Content-Security-Policy refuses such requests.
Scalar.createApiReference("#reference", {
  url: "/openapi.json",
  agent: { disabled: true },
  mcp: { disabled: true },
  proxyUrl: "",
  telemetry: false,
  withDefaultFonts: false,
  hideClientButton: true,
  showDeveloperTools: "never",
  documentDownloadType: "direct",
  authentication: { preferredSecurityScheme: "bearer" },
  persistAuth: false, // a token in the browser's storage would outlive the tab
})
