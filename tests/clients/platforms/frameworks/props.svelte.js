export function createProps(initial) {
  const props = $state(initial);
  return props;
}
