// A mock of FatSecret's food search: `method=foods.search` on /rest/server.api (GET or POST form), and /rest/foods/search/v1.
import { type Call, sendJson, think } from './mock-server.ts';

/** Name, then kcal, fat, carbohydrates and protein in 100 g. */
const FOODS: readonly (readonly [string, number, number, number, number])[] = [
  ['Banana', 89, 0.33, 22.84, 1.09],
  ['Apple', 52, 0.17, 13.81, 0.26],
  ['Oatmeal', 62, 1.4, 10.6, 2.32],
  ['Chicken Breast', 195, 7.72, 0, 29.55],
  ['Cooked Brown Rice', 110, 0.89, 22.78, 2.56],
  ['Boiled Egg', 154, 10.57, 1.12, 12.53],
  ['Salmon', 146, 5.93, 0, 21.62],
  ['Greek Yogurt', 59, 0.39, 3.6, 10.19],
];
// https://platform.fatsecret.com/docs/guides/error-codes: errors come with status 200.
const UNKNOWN_METHOD = 10;
const MISSING_PARAMETER = 101;

/** Answers like platform.fatsecret.com after thinking for about `thinkMs`. */
export function fatsecretMock(thinkMs: number): (call: Call) => Promise<void> {
  return async (call) => {
    const { response, url } = call;
    await think(thinkMs);
    const parameters = new URLSearchParams(url.search);
    if (call.request.headers['content-type']?.startsWith('application/x-www-form-urlencoded')) {
      for (const [name, value] of new URLSearchParams(call.body.toString('utf8'))) parameters.set(name, value);
    }
    if (url.pathname === '/rest/foods/search/v1') return search(call, parameters);
    if (url.pathname !== '/rest/server.api') return sendJson(response, 404, { message: 'Not Found' });
    const method = parameters.get('method') ?? '';
    if (method !== 'foods.search') return refuse(call, UNKNOWN_METHOD, `Unknown method: '${method}'`);
    search(call, parameters);
  };
}

function search(call: Call, parameters: URLSearchParams): void {
  const expression = parameters.get('search_expression');
  if (expression === null) {
    refuse(call, MISSING_PARAMETER, 'Missing required parameter: search_expression');
    return;
  }
  const wanted = expression.toLowerCase();
  const found = FOODS.filter(([name]) => name.toLowerCase().includes(wanted));
  const limit = Math.min(Number(parameters.get('max_results') ?? 20) || 20, 50);
  const foods = {
    food: found.slice(0, limit).map(food),
    max_results: String(limit),
    page_number: '0',
    total_results: String(found.length),
  };
  sendJson(call.response, 200, { foods });
}

function food([name, kcal, fat, carbs, protein]: (typeof FOODS)[number]): object {
  return {
    food_id: String(35_000 + FOODS.findIndex(([known]) => known === name)),
    food_name: name,
    food_type: 'Generic',
    food_url: `https://www.fatsecret.com/calories-nutrition/generic/${name.toLowerCase().replaceAll(' ', '-')}`,
    food_description: `Per 100g - Calories: ${kcal}kcal | Fat: ${fat}g | Carbs: ${carbs}g | Protein: ${protein}g`,
  };
}

function refuse(call: Call, code: number, message: string): void {
  sendJson(call.response, 200, { error: { code, message } });
}
