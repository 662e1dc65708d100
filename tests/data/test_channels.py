import pytest
import torch

from emulator.data.channels import Channels, Layout

CHANNELS = Channels(("temperature", "surface_pressure", "specific_humidity"), (3, 0, 2))


def fields(batch=2):
    shapes = {"temperature": (3, 4, 5), "surface_pressure": (4, 5), "specific_humidity": (2, 4, 5)}
    return {name: torch.randn(batch, *shape) for name, shape in shapes.items()}


def test_unpack_inverts_pack():
    named = fields()
    packed = CHANNELS.pack(named)
    assert packed.shape == (2, CHANNELS.count, 4, 5)
    for name, field in CHANNELS.unpack(packed).items():
        torch.testing.assert_close(field, named[name], rtol=0, atol=0)


def test_labels_and_slices_name_the_packed_order():
    packed = CHANNELS.pack(fields())
    labels = CHANNELS.labels()
    assert labels[3] == "surface_pressure" and labels[4] == "specific_humidity[0]" and len(labels) == packed.shape[1]
    assert CHANNELS.slices["specific_humidity"] == slice(4, 6)


def test_replace_changes_the_named_fields_alone():
    packed = CHANNELS.pack(fields())
    new = torch.zeros(2, 4, 5)
    replaced = CHANNELS.replace(packed, {"surface_pressure": new, "unknown": new})
    torch.testing.assert_close(replaced[:, 3], new, rtol=0, atol=0)
    keep = [0, 1, 2, 4, 5]
    torch.testing.assert_close(replaced[:, keep], packed[:, keep], rtol=0, atol=0)
    assert CHANNELS.replace(packed, {"unknown": new}) is packed


def test_point_grids_have_one_axis_of_space():
    channels = Channels(("temperature", "surface_pressure"), (2, 0))
    packed = channels.pack({"temperature": torch.randn(1, 2, 7), "surface_pressure": torch.randn(1, 7)})
    assert packed.shape == (1, 3, 7)
    assert channels.unpack(packed)["surface_pressure"].shape == (1, 7)


def test_a_missing_field_and_a_wrong_count_are_named():
    with pytest.raises(ValueError, match="specific_humidity"):
        CHANNELS.pack({k: v for k, v in fields().items() if k != "specific_humidity"})
    with pytest.raises(ValueError, match="Expected 6 channels .*, got 5"):
        CHANNELS.unpack(torch.zeros(1, 5, 4, 5))


def test_layout_survives_json(planet):
    layout = Layout(
        Channels.of(planet, ["temperature", "surface_pressure"]),
        Channels.of(planet, ["mean_evaporation_rate"]),
        Channels.of(planet, []),
        Channels.of(planet, ["land_sea_mask"]),
    )
    assert Layout.from_json(layout.to_json()) == layout
    assert layout.prognostic.levels == (4, 0)


def test_fields_are_replaced_in_place_as_in_a_copy():
    channels = Channels(("temperature", "surface_pressure", "specific_humidity"), (2, 0, 3))
    tensor = torch.arange(2 * 6 * 4.0).reshape(2, 6, 4)
    changed = {
        "surface_pressure": -torch.ones(2, 4),
        "specific_humidity": -torch.ones(2, 3, 4),
        "other": torch.ones(()),
    }
    expected, given = channels.replace(tensor, changed), tensor.clone()
    assert channels.replace(tensor, changed, in_place=True) is tensor
    assert torch.equal(tensor, expected) and torch.equal(tensor[:, :2], given[:, :2]) and not torch.equal(tensor, given)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"forcing": ["temperature"]}, "temperature as prognostic and forcing"),
        ({"diagnostic": ["mean_evaporation_rate", "temperature"]}, "temperature as prognostic and diagnostic"),
        ({"prognostic": ["temperature", "temperature"]}, "temperature as prognostic and prognostic"),
    ],
)
def test_a_variable_has_one_role(planet, chosen, said):
    data = planet.assign_attrs(time_step_seconds=21600.0)
    with pytest.raises(ValueError, match=f"every variable of the planet in one role, got {said}"):
        Layout.of(data, {"prognostic": ["temperature"]} | chosen, "the planet")


def test_an_analysis_of_several_members_is_refused_with_the_way_out(planet):
    data = planet.assign_attrs(time_step_seconds=21600.0)
    data = data.assign(temperature=data.temperature.expand_dims(member=range(6), axis=1))
    with pytest.raises(
        ValueError, match=r"one state at each time .* temperature of 6 members \(0, 1, 2, 3, ...\).* select:"
    ):
        Layout.of(data, {"prognostic": ["temperature"]})
