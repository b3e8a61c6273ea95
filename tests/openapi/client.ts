// A client as other people would write it, with the types made from the document. It only has to compile.

import type { components, operations } from "./api";

type Ok<Id extends keyof operations> = operations[Id]["responses"] extends {
  200: { content: { "application/json": infer Body } };
} ? Body : never;
type Query<Id extends keyof operations> = NonNullable<operations[Id]["parameters"]["query"]>;

const severity: components["schemas"]["Level"] = "critical";
// @ts-expect-error: there are four severities
const unknown: components["schemas"]["Level"] = "awful";

async function ask<Id extends keyof operations>(path: string, query?: Query<Id>): Promise<Ok<Id>> {
  const given = Object.entries(query ?? {}).map(([name, value]) => [name, String(value)]);
  const response = await fetch(`${path}?${new URLSearchParams(given)}`);
  return response.json() as Promise<Ok<Id>>;
}

export async function shown(): Promise<string[]> {
  const timeline = await ask<"get_timeline">("/api/v1/timeline", { hours: 24, severity, series_limit: 10 });
  const alerts = await ask<"list_alerts">("/api/v1/alerts", { city: "NYC", limit: 5 });
  const stats = await ask<"get_stats">("/api/v1/stats");
  const sums: number[] = [timeline.totals.event_count, timeline.all_time.late_count, stats.total_events_processed];
  const others: number[][] = timeline.others.steps;
  const levels: components["schemas"]["Level"][] = alerts.alerts.map((alert) => alert.severity);
  const next: string | null | undefined = alerts.next;
  return [...levels, ...sums.map(String), String(others.length), next ?? "", unknown];
}
