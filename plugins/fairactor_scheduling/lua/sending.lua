-- Shared by the scripts that send runs: what a run consists of. A schedule sends a message, `item`, or a graph: then
-- `graph` has what stands for the id of a run, and id and packed message of each step, and `many` says how many these are.

-- @takes with_id, ACCEPTED, REPEAT, FULL, WITH_FULL from lib/accept.lua

local PLACEHOLDER, STEP = '>Hc0', '>Hc0I4c0'

local function read_graph(packed)
  local placeholder, at = struct.unpack(PLACEHOLDER, packed)
  local names, messages = {}, {}
  while at <= #packed do
    local n = #names + 1
    names[n], messages[n], at = struct.unpack(STEP, packed, at)
  end
  return { placeholder, names, messages }
end

-- Appends the tasks of a run to a list. Returns their ids.
local function add_tasks(items, item, graph, run)
  if not graph then
    items[#items + 1] = with_id(item, run)
    return { run }
  end
  local placeholder, names, messages = unpack(graph)
  local ids = {}
  for i, message in ipairs(messages) do
    items[#items + 1] = (message:gsub(placeholder, run)) -- it is as long, so no length in the message changes
    ids[i] = (names[i]:gsub(placeholder, run))
  end
  return ids
end

-- Returns the verdict about the tasks from `first` to `last`, which are accepted together.
local function verdict_of(verdicts, first, last)
  if not verdicts then return ACCEPTED end
  local accepted
  for n = first, last do
    if verdicts[n] == FULL or verdicts[n] == WITH_FULL then return FULL end
    accepted = accepted or verdicts[n] == ACCEPTED or verdicts[n] == REPEAT
  end
  return accepted and ACCEPTED or verdicts[first]
end
