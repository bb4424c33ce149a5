// Tests of examples/edge.html in a headless Chromium, for service.mjs.
import assert from "node:assert/strict";
import { launch, Wire } from "./chromium.mjs";

export const browser = await launch();

export const tests = {
  "the page shows orders, and misses none when it is cut off": async (
    service,
  ) => {
    const wire = await Wire.to(service);
    const page = await browser.newPage();
    await page.goto(wire.url);
    const connection = (text) =>
      page.getByText(text, { exact: true }).waitFor();
    const log = page.getByRole("log", { name: "Orders" });
    const line = (text) =>
      log.getByText(text, { exact: true }).last().waitFor();
    await connection("Connected");
    const dish = "<b>soup & salad</b>";
    await page.getByLabel("Dish").fill(dish);
    await page.getByLabel("Table").fill("7");
    await page.getByRole("button", { name: "Bake" }).click();
    await page.getByRole("status").getByText(`"dish":${JSON.stringify(dish)}`)
      .waitFor();
    await page.getByRole("button", { name: "Order" }).click();
    await line(`${dish} for table 7`);
    assert.equal(await log.locator("b").count(), 0); // it is text
    const last = await service.order("from elsewhere");
    await line("from elsewhere for table 1");

    wire.cut();
    await connection("Cut off, trying again");
    await service.orders("while away 1", "while away 2");
    wire.mend();
    await connection("Connected");
    await service.order("back");
    await line("back for table 1");
    const lines = await log.getByRole("listitem").allTextContents();
    assert.deepEqual(lines.slice(-5), [
      `${dish} for table 7`,
      "from elsewhere for table 1",
      "while away 1 for table 1",
      "while away 2 for table 1",
      "back for table 1",
    ]);
    assert.deepEqual(wire.ids, [last]);

    await service.stop();
    await service.start();
    await service.order("new");
    await line("new for table 1");
    const all = await log.getByRole("listitem").allTextContents();
    assert.deepEqual(all.slice(-2), ["(missed some)", "new for table 1"]);
    await page.close();
    wire.close();
  },
};
