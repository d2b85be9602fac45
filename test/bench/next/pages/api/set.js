import { set } from "../../lib/origin";

export default function handler(request, response) {
  set(request.query);
  response.json(0);
}
