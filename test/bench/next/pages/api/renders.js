import { renders } from "../../lib/origin";

export default function handler(request, response) {
  response.json(renders(request.query.of));
}
