from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            "Product",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("origin", models.IntegerField()),
                ("name", models.CharField(max_length=50)),
                ("price", models.CharField(max_length=20)),
            ],
        ),
        migrations.CreateModel(
            "Order",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("origin", models.IntegerField()),
                ("reference", models.CharField(max_length=50)),
                ("customer_name", models.CharField(max_length=50)),
                ("product", models.ForeignKey("store.Product", models.CASCADE)),
            ],
        ),
        migrations.CreateModel(
            "Country",
            [
                ("code", models.CharField(max_length=2, primary_key=True)),
                ("rate", models.IntegerField()),
            ],
        ),
        migrations.CreateModel(
            "Setting",
            [
                ("name", models.CharField(max_length=20, primary_key=True)),
                ("value", models.TextField()),
            ],
        ),
        migrations.CreateModel(
            "Effect",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("origin", models.IntegerField()),
                ("routine", models.CharField(max_length=50)),
                ("item", models.CharField(max_length=50)),
            ],
        ),
    ]
