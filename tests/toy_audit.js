// What is wrong with a page for people who do not see it, or see it badly: a list of sentences.
() => {
  const wrong = [];
  const visible = (node) => node.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const numbers = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.e-]+/g).slice(text.startsWith("color(") ? 0 : 0).map(Number);
    return text.startsWith("color(") ? [255 * r, 255 * g, 255 * b, a] : [r, g, b, a];
  };
  const over = ([r, g, b, a], under) => [r, g, b].map((c, i) => a * c + (1 - a) * under[i]);
  const backdrop = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.unshift(numbers(getComputedStyle(at).backgroundColor));
    return layers.reduce((under, layer) => over(layer, under), [255, 255, 255]);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };

  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let read = 0;
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || !visible(node) || node.closest(":disabled, .vh, .jump, noscript, option")) continue;
    const style = getComputedStyle(node);
    const paint = node.closest("svg") ? style.fill : style.color;
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const under = backdrop(node);
    const found = contrast(over(numbers(paint), under), under);
    read += 1;
    if (found < (large ? 3 : 4.5)) wrong.push(`contrast ${found.toFixed(2)}: ${texts.currentNode.textContent.trim().slice(0, 40)}`);
  }
  if (read < 10) wrong.push(`only ${read} texts were looked at`);

  for (const node of document.querySelectorAll("input:not([type=checkbox], [hidden]), select, textarea, .class")) {
    if (!visible(node) || node.disabled) continue;
    const style = getComputedStyle(node);
    const found = contrast(over(numbers(style.borderTopColor), backdrop(node.parentElement)), backdrop(node.parentElement));
    if (found < 3) wrong.push(`edge ${found.toFixed(2)}: ${node.outerHTML.slice(0, 60)}`);
  }
  for (const node of document.querySelectorAll("[tabindex]")) {
    if (node.tabIndex > 0) wrong.push(`tabindex ${node.tabIndex}: ${node.outerHTML.slice(0, 60)}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  for (const id of ids.filter((one, i) => ids.indexOf(one) !== i)) wrong.push(`two elements are #${id}`);
  for (const name of ["aria-labelledby", "aria-describedby", "for"]) {
    for (const node of document.querySelectorAll(`[${name}]`)) {
      for (const id of node.getAttribute(name).split(" ")) if (!document.getElementById(id)) wrong.push(`${name} of no #${id}`);
    }
  }
  for (const [selector, count] of [["main", 1], ["h1", 1], ["header", 1], ["head > title", 1], ["html[lang]", 1]]) {
    if (document.querySelectorAll(selector).length !== count) wrong.push(`not ${count} of ${selector}`);
  }
  const levels = [...document.querySelectorAll("h1, h2, h3")].filter(visible).map((node) => Number(node.tagName[1]));
  levels.forEach((level, i) => { if (i && level > levels[i - 1] + 1) wrong.push(`heading ${level} after ${levels[i - 1]}`); });
  if (!document.querySelector("[aria-live], [role=status], [role=alert]")) wrong.push("nothing is announced");
  for (const node of document.querySelectorAll("button, .class, summary")) {
    const box = node.getBoundingClientRect();
    if (visible(node) && Math.min(box.width, box.height) < 24) wrong.push(`${box.width} by ${box.height}: ${node.outerHTML.slice(0, 60)}`);
  }
  return wrong;
}
